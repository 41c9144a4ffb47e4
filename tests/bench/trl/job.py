"""What TRL is asked for. As JSON it is what `worker.py` reads, so names here are names there.

Models are Hugging Face folders (config.json, model.safetensors) with one vocabulary. Rows are prompt-major: the
`group` responses of prompt 0, then those of prompt 1; responses end with EOS unless they are truncated.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Tokens = list[int]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Optimizer steps of one method from the student's weights, each on all prompts.

    method: `opd` (DistillationTrainer, beta=1) or `grpo` (GRPOTrainer, beta=0). reward: `parity`, 1 where the number of
    the response's tokens, EOS included, is even; or `last`, 1 where its last token before EOS is the prompt's answer.
    normaliser: TRL's loss_type `grpo`, `dapo` or `dr_grpo`. max_grad_norm: 0 clips nothing.
    Errors: ValueError for what does not fit together.
    """

    method: Literal["opd", "grpo"]
    student: Path
    teacher: Path | None = None  # opd only
    prompts: list[Tokens]
    group: int = 1  # responses per prompt; at least 2 for grpo
    max_new_tokens: int = 24
    temperature: float = 1.0  # of sampling and of the loss
    pad: int = 0
    bos: int = 1
    eos: int = 2
    reward: Literal["parity", "last"] = "parity"
    answers: list[int] = field(default_factory=list)  # for `last`, one token a prompt
    normaliser: Literal["sequence", "token", "constant"] = "sequence"
    std: Literal["group", "batch", "none"] = "group"
    learning_rate: float = 3e-5
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    warmup: int = 3
    steps: int = 10

    def __post_init__(self) -> None:
        if (self.method == "opd") != (self.teacher is not None):
            raise ValueError(f"{self.method}: a teacher belongs to opd, and only to it")
        if (self.method == "opd") != (self.group == 1):
            raise ValueError(f"{self.method} with {self.group} responses per prompt: opd takes 1, grpo at least 2")
        if self.warmup < 1:
            raise ValueError("the first step counts from the start of the process: warmup must be at least 1")
        if self.reward == "last" and len(self.answers) != len(self.prompts):
            raise ValueError(f"{len(self.answers)} answers for {len(self.prompts)} prompts")


@dataclass(frozen=True, kw_only=True)
class Given:
    """Responses for a job's prompts, in place of drawn ones; for grpo rewards, or advantages in place of TRL's own."""

    responses: list[Tokens]
    rewards: list[float] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)


def text(job: Job, given: Given | None = None) -> str:
    """The JSON of a job. Errors: ValueError when the rows given are not the job's."""
    given = given or Given(responses=[])
    rows = len(job.prompts) * job.group
    for name, values in asdict(given).items():
        if values and len(values) != rows:
            raise ValueError(f"{len(values)} {name} for {rows} rows")
    return json.dumps(asdict(job) | asdict(given), default=str)
