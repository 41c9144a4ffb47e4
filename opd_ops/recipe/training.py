"""How a run trains: optimizer, horizon, evaluation, precision."""

from dataclasses import dataclass, field
from typing import Literal

from opd_ops.recipe.later import LATER
from opd_ops.recipe.name import require_name


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

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"optimizer.learning_rate is a number above 0, got {self.learning_rate:g}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"optimizer.weight_decay is a number from 0 up, got {self.weight_decay:g}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas lie in [0, 1), got {self.betas}")
        if not (self.eps > 0 and self.clip > 0 and self.warmup >= 0):
            raise ValueError(
                "optimizer.eps and clip are above 0 and warmup is from 0 up, got "
                f"{self.eps:g}, {self.clip:g} and {self.warmup}"
            )

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
class NormOf:
    """Stop once the update is as large as another run's at its end: ||W_t - W_0||_F over all decoder projections."""

    recipe: str
    seed: int | None = None  # None: the run's own seed
    kind: Literal["norm"] = "norm"

    def __post_init__(self) -> None:
        require_name(self.recipe, "until.recipe")


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """How long to train: exactly `steps`, or up to `steps` until the gate opens or the norm of `until` is reached."""

    steps: int
    gate: Gate | None = None
    snapshots: tuple[int, ...] | None = None  # None: log-spaced and every 5 % of `steps`
    resume_every: int = 25  # steps between resume states
    until: NormOf | None = field(default=None, metadata=LATER)  # never reached within `steps` is an error

    def __post_init__(self) -> None:
        if self.gate is not None and self.until is not None:
            raise ValueError("a horizon has one end: leave out gate or until")
        if self.steps < 1 or self.resume_every < 1:
            raise ValueError(f"horizon.steps and resume_every are at least 1, got {self.steps} and {self.resume_every}")
        if outside := [step for step in self.snapshots or () if not 1 <= step <= self.steps]:
            raise ValueError(f"horizon.snapshots are steps from 1 to {self.steps}, got {outside[0]}")

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
    batch: int = 1024  # rows of one sampling call

    def __post_init__(self) -> None:
        for name in ("problems", "samples", "batch"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"evaluation.{name} is at least 1, got {value}")
        if wrong := [t for t in self.temperatures if not 0 <= t < float("inf")]:
            raise ValueError(f"evaluation.temperatures are numbers from 0 up, got {wrong[0]:g}")


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Dtypes. Masters, accumulated gradients and moments are fp32, always.

    weights: what the forward sees: the masters rounded to bf16 (what is served), or the masters.
    compute: `fp32`; `autocast`, weights kept in fp32 and matrix products in bf16; `bf16`, weights, activations and each
    micro-batch's gradient in bf16 (half the memory).
    snapshots: how masters are kept: `exact`; or `bf16-update`, W_t - W_0 rounded to bf16 and the bf16 view exactly, for
    a third of the bytes. Resume states are exact, always; what starts from a snapshot starts from what was kept.
    """

    weights: Literal["bf16", "fp32"] = "bf16"
    compute: Literal["fp32", "autocast", "bf16"] = "fp32"
    gradients: Literal["fp32"] = "fp32"
    moments: Literal["fp32"] = "fp32"
    micro_batch: int = 64  # rows of one forward; part of the identity, since float addition depends on the split
    snapshots: Literal["exact", "bf16-update"] = field(default="exact", metadata=LATER)

    def __post_init__(self) -> None:
        if self.compute == "bf16" and self.weights != "bf16":
            raise ValueError(f"compute in bf16 keeps its weights in bf16, not {self.weights}: use autocast")
        if self.micro_batch < 1:
            raise ValueError(f"precision.micro_batch is at least 1, got {self.micro_batch}")
