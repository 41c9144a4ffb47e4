"""TRL 1.16's training steps: CPU seconds of a step, and loss and gradient on given tokens. Each call is a process.

The environment `.venv-trl` takes two minutes and 1.4 GB. Its transformers is this project's, so that both sides train
the same model code. With y_b the n_b response tokens of row b, EOS included, of B rows and N tokens in all, and p_s and
p_T = softmax(logits / sampling temperature), TRL computes (pinned in tests):

    opd   (1/N) sum_b sum_t KL(p_s || p_T) over the whole vocabulary: DistillationTrainer with beta=1
    grpo  -sum_b A_b / (B n_b) sum_t ratio_bt, ratio = exp(log p_s - its detached value) = 1: clipping never acts.
          A_b = (r_b - mean) / (std + 1e-4) in its group, std with Bessel's correction

A step is the trainer's whole loop at the documented settings under which it is fastest on one CPU thread: f32, no
gradient checkpointing, one batch of all rows, no logging, saving or loader processes, no reference model. Eager
attention, a static cache, accumulated half batches and unfused AdamW were measured: within noise or slower.
torch.compile and vLLM were not tried. Sampled lengths depend on the weights: compare `tokens` and `longest` before
seconds. Gradients are before clipping; tied weights are there once, as embed_tokens.
"""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tests.bench.environment import ROOT, TORCH, Environment
from tests.bench.trl.job import Job

TRL = Environment(
    ROOT / ".venv-trl",
    (TORCH, "trl==1.16.0", "transformers==5.19.0", "accelerate==1.15.0", "datasets==5.2.0"),
    {"HF_HUB_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": ""},
)
WORKER = Path(__file__).with_name("worker.py")
PARTS = ("generate", "forward", "backward", "optimizer")  # disjoint; `teacher` lies within `forward`


@dataclass(frozen=True, kw_only=True)
class Steps:
    """One entry a measured step. seconds: CPU, of the whole step; parts: of the parts named in `worker.py`.

    tokens: response tokens, EOS included; longest: columns of the padded responses. versions: by package.
    """

    seconds: list[float]
    parts: dict[str, list[float]]
    tokens: list[int]
    longest: list[int]
    versions: dict[str, str]

    @property
    def median(self) -> float:
        """CPU seconds of a step."""
        return median(self.seconds)

    @property
    def outside(self) -> float:
        """Share of a step outside generate, forward, backward and optimizer.step, median over steps."""
        inside = zip(*(self.parts[part] for part in PARTS), strict=True)
        return median(1 - sum(parts) / whole for parts, whole in zip(inside, self.seconds, strict=True))


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """TRL's loss and its gradient, before clipping, f32. norm: of all of it. advantages: [rows], as used, for grpo."""

    loss: float
    norm: float
    tensors: dict[str, Tensor]
    advantages: list[float] | None
    versions: dict[str, str]


def measure(job: Job) -> Steps:
    """Take the job's steps. Errors: Absent where TRL is not installed or fails."""
    with tempfile.TemporaryDirectory() as folder:
        return Steps(**_run(job, Path(folder)))


def evaluate(job: Job) -> Gradient:
    """One step on the job's responses, by the trainer's own path. Errors: as `measure`."""
    with tempfile.TemporaryDirectory() as folder:
        result = _run(job, Path(folder))
        return Gradient(tensors=load_file(Path(folder) / "gradients.safetensors"), **result)


def _run(job: Job, folder: Path) -> dict[str, Any]:
    """The worker's result.json; what else it writes stays in `folder`."""
    (folder / "job.json").write_text(json.dumps(asdict(job), default=str))
    TRL.call([str(TRL.interpreter()), "-I", str(WORKER), str(folder)], "failed")
    return json.loads((folder / "result.json").read_text())
