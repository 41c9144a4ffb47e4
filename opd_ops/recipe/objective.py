"""What every objective declares: where its sequences come from, what they need, and what a step costs.

An objective is a frozen dataclass whose fields are part of a recipe's identity. `Objective` holds the answers of one
that trains on the rollouts of its recipe, without a teacher and without rewards; a subclass overrides what differs.
Callers ask these questions and never which objective they have.

Nothing here needs torch. `opd_ops.objectives.losses` names the loss that trains each objective.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

from opd_ops.recipe.rollout import Replay, Rollout
from opd_ops.recipe.start import FinalOf, Weights

Normaliser = Literal["token", "sequence", "constant"]


class Objective:
    """The base of every objective.

    kind                 its name, by which `opd_ops.objectives.losses.LOSSES` finds its loss
    title                what an arm with it does, in words
    cost                 work of a training step, relative to SFT on the same sequences
    demonstrations       the task's stream that it trains on; None trains on rollouts
    needs_teacher        a model scores the responses: `teacher`, or, where that is None, the start model, which reads
                         each problem's privileged prompt
    scores_vocabulary    the teacher scores every token of the vocabulary
    needs_rewards        a response's advantage is that of its reward in its group
    zero_variance_limit  stop after so many consecutive steps without any advantage; None never stops
    """

    kind: str
    title: ClassVar[str] = ""
    cost: ClassVar[float] = 1.0
    needs_teacher: ClassVar[bool] = False
    needs_rewards: ClassVar[bool] = False
    teacher: FinalOf | Weights | None = None

    @property
    def demonstrations(self) -> str | None:
        return None

    @property
    def scores_vocabulary(self) -> bool:
        return False

    @property
    def zero_variance_limit(self) -> int | None:
        return None

    @property
    def reads_privileged(self) -> bool:
        """Whether the teacher is the start model on privileged prompts."""
        return self.needs_teacher and self.teacher is None

    @property
    def parts(self) -> tuple["Objective", ...]:
        """The objectives whose losses are added up: itself, unless it combines others."""
        return (self,)

    def coefficients(self, rms: Sequence[float]) -> tuple[float, ...]:
        """The factor of each part's loss. rms: of each part's per-token advantage over the step."""
        return (1.0,) * len(self.parts)

    def refusals(self, rollout: Rollout) -> list[str]:
        """Why the rollouts do not give the declared gradient; empty when they do."""
        reasons = []
        if not rollout.on_policy and rollout.source == Replay(recipe=""):
            reasons.append("a replay names the recipe whose rollouts it reads")
        if rollout.temperature == 0:
            reasons.append("greedy rollouts are no sample of the policy; sample at a temperature above 0")
        if rollout.on_policy and rollout.correction:
            reasons.append("the student's own rollouts have importance weights of 1: leave the correction out")
        return reasons


def require_known(field: str, value: str, known: Any) -> None:
    """Errors: ValueError naming the field when a value is none of a Literal's."""
    if value not in get_args(known):
        raise ValueError(f"unknown {field} {value!r}; known: {', '.join(get_args(known))}")


def require_temperature(value: float) -> None:
    """Errors: ValueError unless the loss temperature is positive."""
    if not value > 0:
        raise ValueError(f"the loss temperature is positive, got {value:g}")


def temperature_refusals(what: str, loss_temperature: float, rollout: Rollout) -> list[str]:
    """Why a loss that is an expectation over samples does not fit the temperature they were drawn at."""
    if loss_temperature == rollout.temperature:
        return []
    return [
        f"{what} at loss temperature {loss_temperature:g} needs samples drawn at it, "
        f"and rollout.temperature is {rollout.temperature:g}"
    ]
