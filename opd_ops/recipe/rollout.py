"""How a step's responses are sampled, always with top_p 1 and without top_k."""

from dataclasses import dataclass
from typing import Literal

from opd_ops.recipe.name import require_name


@dataclass(frozen=True, kw_only=True)
class Student:
    """The student itself, `lag` optimizer steps ago (0: today's weights; steps 1 to lag + 1 see the start's)."""

    lag: int = 0
    kind: Literal["student"] = "student"

    def __post_init__(self) -> None:
        if self.lag < 0:
            raise ValueError(f"the lag of the rollout student counts steps from 0, got {self.lag}")


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The teacher: the paper's off-policy arm."""

    kind: Literal["teacher"] = "teacher"


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The stored rollouts of another run, step by step: a train-only rerun on another objective."""

    recipe: str
    seed: int | None = None  # None: the run's own seed
    kind: Literal["replay"] = "replay"

    def __post_init__(self) -> None:
        if self.recipe:  # without one, the recipe says what a replay needs
            require_name(self.recipe, "replay.recipe")


Source = Student | Teacher | Replay


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Token-level importance weights s(y) / rollout(y), cut at `cap` (None: uncut, unbiased, heavy-tailed)."""

    cap: float | None = 2.0

    def __post_init__(self) -> None:
        if self.cap is not None and self.cap < 1:
            raise ValueError(f"an importance weight is cut at 1 or above, got {self.cap:g}")


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Prompts of a step and the responses to each.

    batch: rows of one sampling call. Part of what a run is, since float addition depends on the batch; actors share
    whole calls, so their number changes nothing.
    """

    prompts: int
    samples: int = 1
    max_new_tokens: int
    temperature: float = 1.0
    source: Source = Student()
    correction: Correction | None = None
    engine: Literal["hf", "vllm"] = "hf"
    batch: int = 64
    mask_truncated: bool = False  # leave responses that hit the length limit out of the loss

    def __post_init__(self) -> None:
        for name in ("prompts", "samples", "max_new_tokens", "batch"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"rollout.{name} is at least 1, got {value}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"the sampling temperature is not negative, got {self.temperature:g}")

    @property
    def on_policy(self) -> bool:
        """Whether the rollouts are today's student's."""
        return self.source == Student()

    @property
    def drawn_by(self) -> str:
        """Who draws the responses, in words."""
        if isinstance(self.source, Student):
            return f"student of {self.source.lag} steps ago"
        return self.source.kind
