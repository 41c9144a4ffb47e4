"""What a run minimises. Each names the divergence its gradient follows; what does not follow it is refused.

Directions by formula: s is the student's next-token distribution, T the teacher's, both at the loss temperature.

    reverse-kl   KL(s || T) = sum_v s(v) [log s(v) - log T(v)]
    forward-kl   KL(T || s) = sum_v T(v) [log T(v) - log s(v)]
    jsd          beta KL(T || M) + (1 - beta) KL(s || M),  M = beta T + (1 - beta) s      (GKD, arXiv 2306.13649)
    none         whatever the estimator's expectation is: the paper's own combinations that follow no divergence
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from opd_ops.recipe.start import FinalOf, Weights

Divergence = Literal["reverse-kl", "forward-kl", "jsd", "none"]
Estimator = Literal["full", "policy-gradient", "k2", "teacher-top-k", "student-top-k"]
Normaliser = Literal["token", "sequence", "constant"]
Spread = Literal["group", "batch", "none"]
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


def require_known(field: str, value: str, known: Any) -> None:
    """Errors: ValueError naming the field when a value is none of a Literal's."""
    if value not in get_args(known):
        raise ValueError(f"unknown {field} {value!r}; known: {', '.join(get_args(known))}")


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
class Sft:
    """Next-token cross-entropy on one of the task's demonstration streams."""

    stream: str
    kind: Literal["sft"] = "sft"


@dataclass(frozen=True, kw_only=True)
class Opd:
    """On-policy distillation; by default the exact full-vocabulary reverse KL.

    `teacher` is another run, a weights folder, or None for the start model reading the task's privileged prompt.
    """

    teacher: FinalOf | Weights | None
    divergence: Divergence = "reverse-kl"
    estimator: Estimator = "full"
    beta: float | None = None  # of jsd
    k: int | None = None  # of the top-k estimators
    loss_temperature: float = 1.0
    normaliser: Normaliser = "token"
    selection: Selection | None = None
    kind: Literal["opd"] = "opd"

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
        if not self.loss_temperature > 0:
            raise ValueError(f"the loss temperature is positive, got {self.loss_temperature:g}")
        gap = self.selection is not None and self.selection.by in ("gap", "absolute-gap")
        if gap and self.estimator in SAMPLED and self.divergence != "none":
            raise ValueError(
                f"selecting by {self.selection and self.selection.by!r} looks at the sampled token, which biases "
                f"estimator {self.estimator!r} away from {self.divergence!r}: use estimator 'full', or say "
                "divergence='none' with 'policy-gradient', as the paper trains it"
            )


@dataclass(frozen=True, kw_only=True)
class Rlvr:
    """GRPO with verifier rewards and no KL term; one update per batch of rollouts.

    clip: (low, high) of the importance ratio against the rollout's policy, (0.2, 0.28) in the paper. Where the rollouts
    are the current policy's the ratio is 1 and clipping never acts.
    """

    normaliser: Normaliser = "sequence"
    std: Spread = "group"
    clip: tuple[float, float] | None = None
    loss_temperature: float = 1.0
    drop_flat: bool = False  # leave groups without reward variance out of the batch, and of its denominators
    flat_limit: int = 25  # consecutive steps with nothing but such groups before the run is stopped
    kind: Literal["rlvr"] = "rlvr"

    def __post_init__(self) -> None:
        require_known("normaliser", self.normaliser, Normaliser)
        require_known("std", self.std, Spread)
        if not self.loss_temperature > 0:
            raise ValueError(f"the loss temperature is positive, got {self.loss_temperature:g}")
        if self.clip is not None and not (0 < self.clip[0] < 1 and self.clip[1] > 0):
            raise ValueError(f"clip is (low, high) with low in (0, 1) and high above 0, got {self.clip}")


@dataclass(frozen=True, kw_only=True)
class Mix:
    """alpha * OPD + (1 - alpha) * RLVR on the same rollouts, each with its own normaliser.

    scale: `raw` as in the paper; `rms` divides each term by the root mean square of its per-token advantage over the
    step (for OPD log s - log T of the sampled token), so that alpha weighs signals of equal size.
    """

    alpha: float
    opd: Opd
    rlvr: Rlvr = Rlvr()
    scale: Literal["raw", "rms"] = "raw"
    kind: Literal["mix"] = "mix"

    def __post_init__(self) -> None:
        require_known("scale", self.scale, Literal["raw", "rms"])
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha lies in [0, 1], got {self.alpha:g}")
        if self.scale == "rms" and self.opd.estimator == "student-top-k":
            raise ValueError("rms mixing needs the teacher's scores before the student's candidates are known")
        if self.rlvr.drop_flat:
            raise ValueError("a mix keeps flat groups, which carry OPD's signal: leave drop_flat out")


Objective = Sft | Opd | Rlvr | Mix


def opd_of(objective: Objective) -> Opd | None:
    """The distillation term of an objective."""
    return objective if isinstance(objective, Opd) else objective.opd if isinstance(objective, Mix) else None


def rlvr_of(objective: Objective) -> Rlvr | None:
    """The reinforcement term of an objective."""
    return objective if isinstance(objective, Rlvr) else objective.rlvr if isinstance(objective, Mix) else None
