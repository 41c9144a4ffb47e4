"""On-policy distillation, as a recipe declares it. The loss: `opd_ops.objectives.opd`.

A recipe names the divergence that its gradient follows; an estimator that does not follow it is refused.

Directions by formula: s is the student's next-token distribution, T the teacher's, both at the loss temperature.

    reverse-kl   KL(s || T) = sum_v s(v) [log s(v) - log T(v)]
    forward-kl   KL(T || s) = sum_v T(v) [log T(v) - log s(v)]
    jsd          beta KL(T || M) + (1 - beta) KL(s || M),  M = beta T + (1 - beta) s      (GKD, arXiv 2306.13649)
    none         whatever the estimator's expectation is: the paper's own combinations that follow no divergence
"""

from dataclasses import dataclass, field
from typing import Literal

from opd_ops.recipe.objective import Normaliser, Objective, require_known, require_temperature, temperature_refusals
from opd_ops.recipe.rollout import Rollout
from opd_ops.recipe.start import FinalOf, Weights

Divergence = Literal["reverse-kl", "forward-kl", "jsd", "none"]
Estimator = Literal["full", "policy-gradient", "k2", "teacher-top-k", "student-top-k"]
Ranking = Literal["gap", "absolute-gap", "random", "teacher-entropy", "student-entropy"]

# What each estimator can be an estimate of. `none` is for `policy-gradient`, whose combinations the paper trains.
FOLLOWS: dict[Estimator, tuple[Divergence, ...]] = {
    "full": ("reverse-kl", "forward-kl", "jsd"),
    "policy-gradient": ("reverse-kl", "none"),
    "k2": ("reverse-kl",),
    "teacher-top-k": ("reverse-kl", "forward-kl", "jsd"),
    "student-top-k": ("reverse-kl",),
}
SAMPLED: tuple[Estimator, ...] = ("policy-gradient", "k2", "student-top-k")  # expectations over the student's samples
TOP_K: tuple[Estimator, ...] = ("teacher-top-k", "student-top-k")
# Why an estimator that other trainers offer is not one here.
NEVER = {
    "k1": "back-propagating log s - log T has a zero expected gradient, the teacher cancels: use policy-gradient",
    "k3": "back-propagating T/s - 1 - log(T/s) follows the forward KL, not the reverse: use full with forward-kl",
    "k3-policy-gradient": "k3 as an advantage can point against the reverse KL: use policy-gradient",
    "divergence-policy-gradient": "a divergence as the sampled token's advantage gives no credit to other tokens: "
    "use full",
    "top-k": "a top-k support without a tail has a gradient at s = T: use teacher-top-k or student-top-k",
}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Train a fraction of each response's tokens, the `keep` T of T ranked highest, weighted by T / count.

    by: `gap` log s(y) - log T(y) of the sampled token y (arXiv 2606.07082, appendix G.2), its absolute value, `random`,
    or an entropy.
    """

    by: Ranking
    keep: float  # in (0, 1]

    def __post_init__(self) -> None:
        require_known("selection.by", self.by, Ranking)
        if not 0 < self.keep <= 1:
            raise ValueError(f"selection keeps a fraction in (0, 1] of the tokens, not {self.keep:g}")


@dataclass(frozen=True, kw_only=True)
class Opd(Objective):
    """On-policy distillation; by default the exact full-vocabulary reverse KL.

    `teacher` is another run, a weights folder, or None for the start model reading the task's privileged prompt.
    """

    teacher: FinalOf | Weights | None = field()  # required
    divergence: Divergence = "reverse-kl"
    estimator: Estimator = "full"
    beta: float | None = None  # of jsd
    k: int | None = None  # of the top-k estimators
    loss_temperature: float = 1.0
    normaliser: Normaliser = "token"
    selection: Selection | None = None
    kind: str = "opd"

    title = "on-policy distillation"
    cost = 2.2  # with the rollouts and the teacher's forward
    needs_teacher = True

    def __post_init__(self) -> None:
        if reason := NEVER.get(self.estimator):
            raise ValueError(f"estimator {self.estimator!r} is refused: {reason}")
        if self.estimator not in FOLLOWS:
            raise ValueError(f"unknown estimator {self.estimator!r}; known: {', '.join(FOLLOWS)}")
        if self.divergence not in (follows := FOLLOWS[self.estimator]):
            raise ValueError(
                f"the gradient of estimator {self.estimator!r} is not that of {self.divergence!r}; "
                f"it follows: {', '.join(follows)}"
            )
        if (self.beta is None) == (self.divergence == "jsd") or (self.beta is not None and not 0 < self.beta < 1):
            raise ValueError(f"beta belongs to jsd and lies in (0, 1), got {self.beta} with {self.divergence!r}")
        if (self.k is None) == (self.estimator in TOP_K) or (self.k is not None and self.k < 1):
            raise ValueError(f"k belongs to {' and '.join(TOP_K)} and is at least 1, got {self.k}")
        require_known("normaliser", self.normaliser, Normaliser)
        require_temperature(self.loss_temperature)
        gap = self.selection is not None and self.selection.by in ("gap", "absolute-gap")
        if gap and self.estimator in SAMPLED and self.divergence != "none":
            raise ValueError(
                f"selecting by {self.selection and self.selection.by!r} looks at the sampled token, which biases "
                f"estimator {self.estimator!r} away from {self.divergence!r}: use estimator 'full', or say "
                "divergence='none' with 'policy-gradient', as the paper trains it"
            )

    @property
    def scores_vocabulary(self) -> bool:
        return self.estimator == "full"

    def refusals(self, rollout: Rollout) -> list[str]:
        reasons = super().refusals(rollout) + self.sample_refusals(rollout)
        if self.estimator not in SAMPLED and rollout.correction:
            reasons.append(
                f"estimator {self.estimator!r} looks at every token, whoever drew one: "
                "a correction would only add noise"
            )
        return reasons

    def sample_refusals(self, rollout: Rollout) -> list[str]:
        """Why an estimator that is an expectation over the student's samples does not fit the rollouts."""
        if self.estimator not in SAMPLED:
            return []
        reasons = temperature_refusals(f"estimator {self.estimator!r}", self.loss_temperature, rollout)
        if not rollout.on_policy and not rollout.correction and self.divergence != "none":
            reasons.append(
                f"estimator {self.estimator!r} expects the student's samples, and they are the {rollout.drawn_by}'s: "
                "name a correction, use estimator 'full', or say divergence='none' with 'policy-gradient', "
                "as the paper trains it"
            )
        return reasons
