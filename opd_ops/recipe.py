"""A recipe is a full, frozen description of one training arm; its fingerprint is what the run *is*.

Plain dataclasses without a heavy import, so that the asset graph loads recipes in milliseconds. Where a run executes
(devices, workers, paths) is `Resources`, and stays out of the fingerprint.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder to be initialised from scratch, as Hugging Face's Qwen3 configuration names its sizes."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 64
    initializer_range: float = 0.08  # near 1/sqrt(hidden); Hugging Face's 0.02 learns four times slower at hidden 128


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """Start from random weights (W0 of pretraining)."""

    architecture: Architecture
    kind: Literal["fresh"] = "fresh"


@dataclass(frozen=True, kw_only=True)
class FinalOf:
    """Start from the bf16 view of another run's last snapshot, as a released checkpoint would be."""

    recipe: str
    seed: int | None = None  # None: the run's own seed
    kind: Literal["final"] = "final"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Start from a Hugging Face folder: `models/<name>` in the store, a local path, or a hub name."""

    ref: str
    kind: Literal["weights"] = "weights"


Start = Fresh | FinalOf | Weights


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Next-token cross-entropy on one of the task's demonstration streams."""

    stream: str
    kind: Literal["sft"] = "sft"


@dataclass(frozen=True, kw_only=True)
class Opd:
    """Exact full-vocabulary reverse KL(student || teacher) on the student's own rollouts.

    `teacher` is another run, a weights folder, or None for the start model reading the task's privileged prompt.
    """

    teacher: FinalOf | Weights | None
    loss_temperature: float = 1.0
    kind: Literal["opd"] = "opd"


@dataclass(frozen=True, kw_only=True)
class Rlvr:
    """GRPO with one update per batch (ratio 1, so clipping never acts) and no KL term."""

    normaliser: Literal["sequence", "token", "constant"] = "sequence"
    std: Literal["group", "batch", "none"] = "group"
    kind: Literal["rlvr"] = "rlvr"


Objective = Sft | Opd | Rlvr


@dataclass(frozen=True, kw_only=True)
class Task:
    """A registered task and its parameters."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """How a step's sequences are drawn: top_p 1, top_k off, always."""

    prompts: int
    samples: int = 1
    max_new_tokens: int
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Decoupled AdamW on fp32 masters. Decay acts on matrices only, never on norms."""

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 5  # steps of linear warm-up
    schedule: Literal["constant", "cosine"] = "constant"  # cosine decays to a tenth over the horizon
    clip: float = 1.0  # global gradient norm

    @property
    def name(self) -> str:
        return f"adamw(b1={self.betas[0]}, b2={self.betas[1]}, eps={self.eps:g})"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Stop at the first evaluation with accuracy at `temperature` in [low, high]; past it, or never, is an error."""

    low: float
    high: float
    temperature: float = 1.0
    every: int = 10  # steps between evaluations


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """How long to train: exactly `steps`, or up to `steps` until the gate opens."""

    steps: int
    gate: Gate | None = None
    snapshots: tuple[int, ...] | None = None  # None: log-spaced and every 5 % of `steps`
    resume_every: int = 25  # steps between resume states

    def snapshot_steps(self) -> tuple[int, ...]:
        if self.snapshots is not None:
            return self.snapshots
        powers = {2**i for i in range(self.steps.bit_length()) if 2**i <= self.steps}
        twentieths = {round(self.steps * i / 20) for i in range(1, 21)}
        return tuple(sorted((powers | twentieths) - {0}))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Held-out accuracy: greedy (temperature 0) and sampled at the endpoints, one sample each at the gate's steps."""

    problems: int
    samples: int = 1  # per problem at the endpoints, at temperatures above 0
    temperatures: tuple[float, ...] = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Masters, moments and gradients are fp32; the forward sees bf16-representable weights in `compute` arithmetic."""

    compute: Literal["fp32", "bf16"] = "fp32"
    micro_batch: int = 64  # rows of one forward; part of the identity, since float addition depends on the split


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Where a run executes. Not part of what the run is."""

    gpus: float = 0.0
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One arm of a study."""

    study: str
    arm: str
    start: Start
    task: Task
    objective: Objective
    optimizer: AdamW
    horizon: Horizon
    rollout: Rollout
    evaluation: Evaluation
    precision: Precision = Precision()
    resources: Resources = Resources()

    @property
    def name(self) -> str:
        return f"{self.study}.{self.arm}"

    def identity(self) -> dict[str, Any]:
        """Everything the numbers depend on, as canonical JSON types."""
        fields = dataclasses.asdict(self)
        del fields["resources"]
        return json.loads(json.dumps(fields, sort_keys=True))

    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of the identity."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def differences(stored: dict[str, Any], current: dict[str, Any], prefix: str = "") -> list[str]:
    """Field-by-field differences of two identities, each as `field: stored -> current`."""
    lines = []
    for key in sorted(stored.keys() | current.keys()):
        old, new = stored.get(key), current.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {json.dumps(old)} -> {json.dumps(new)}")
    return lines
