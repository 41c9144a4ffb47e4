"""Mix, as a recipe declares it: L = c_OPD L_OPD + c_RLVR L_RLVR on the same rollouts.

Each part has its own normaliser and denominator.

    raw   (c_OPD, c_RLVR) = (alpha, 1 - alpha), as the paper mixes advantages
    rms   (alpha / rms_OPD, (1 - alpha) / rms_RLVR), rms the root mean square of the term's per-token advantage over the
          step's tokens: log s(y) - log T(y) for OPD, A for RLVR

Raw scales differ: a log ratio is 0.1 to 1 on few tokens, a group-normalised advantage about 1 on all, so equal raw
coefficients are not equal signals. A term without any signal has rms 0 and gets coefficient 0.
Not measured: whether the two gradients agree; equal rms of advantages is not equal norm of gradients.
Source: arXiv 2606.07082, appendix G, for `raw`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from opd_ops.recipe.objective import Objective, require_known
from opd_ops.recipe.opd import Opd
from opd_ops.recipe.rlvr import Rlvr
from opd_ops.recipe.rollout import Rollout
from opd_ops.recipe.start import FinalOf, Weights


@dataclass(frozen=True, kw_only=True)
class Mix(Objective):
    """alpha * OPD + (1 - alpha) * RLVR on the same rollouts, each with its own normaliser.

    scale: `raw` as in the paper; `rms` divides each term by the root mean square of its per-token advantage over the
    step (for OPD log s - log T of the sampled token), so that alpha weighs signals of equal size.
    """

    alpha: float
    opd: Opd
    rlvr: Rlvr = field(default_factory=Rlvr)
    scale: Literal["raw", "rms"] = "raw"
    kind: str = "mix"

    title = "OPD and RLVR together"
    cost = 2.6
    needs_teacher = True
    needs_rewards = True

    def __post_init__(self) -> None:
        require_known("scale", self.scale, Literal["raw", "rms"])
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha lies in [0, 1], got {self.alpha:g}")
        if self.scale == "rms" and self.opd.estimator == "student-top-k":
            raise ValueError("rms mixing needs the teacher's scores before the student's candidates are known")
        if self.rlvr.drop_flat:
            raise ValueError("a mix keeps flat groups, which carry OPD's signal: leave drop_flat out")

    @property
    def teacher(self) -> FinalOf | Weights | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.opd.teacher

    @property
    def scores_vocabulary(self) -> bool:
        return self.opd.scores_vocabulary

    @property
    def parts(self) -> tuple[Opd, Rlvr]:
        return self.opd, self.rlvr

    def coefficients(self, rms: Sequence[float]) -> tuple[float, ...]:
        """(c_OPD, c_RLVR); the root mean squares are read for `rms` only."""
        shares = self.alpha, 1 - self.alpha
        if self.scale == "raw":
            return shares
        return tuple(share / size if size else 0.0 for share, size in zip(shares, rms, strict=True))

    def refusals(self, rollout: Rollout) -> list[str]:
        return [
            *super().refusals(rollout),
            *self.opd.sample_refusals(rollout),
            *self.rlvr.sample_refusals(rollout),
        ]
