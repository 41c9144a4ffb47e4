"""D4, localization: overlap(M) = |M and changed| / |changed| for two masks M of W0, each of weight alpha n.

    principal       top alpha of |U_r diag(s_r) V_r'|, the rank-r part of W0, r = max(1, min(64, min(m, n) // 8))
    low_magnitude   bottom alpha of |W0|

Chance is alpha. Ties at the threshold (coarse storage grids have masses of them) are handled in expectation: each tied
entry is a member with the same share, chosen so that the mask weighs exactly alpha n. That is the mean over random
tie-breaking, so the overlap is unbiased. Not measured: the size of a change, and any mask of W_t; masks are of W0 only.
Source: arXiv 2606.07082, section 3.1 and appendix C.3 (which prints r = 64 and alpha = 0.5; its figure 3 is consistent
only with alpha near 0.3); the principal mask is from arXiv 2506.00772.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from opd_ops.geometry.exact import Factors


@dataclass(frozen=True)
class Membership:
    """inside, tied: bool, the shape of the scores. Weights: 1 inside, `share` in (0, 1] on ties, 0 elsewhere."""

    inside: Tensor
    tied: Tensor
    share: float

    def weight(self, entries: Tensor) -> float:
        """Total membership of the entries where a bool tensor is true."""
        return int((self.inside & entries).sum()) + self.share * int((self.tied & entries).sum())


@dataclass(frozen=True)
class Mask:
    """A named mask of W0; rank is that of the principal reconstruction, None for low_magnitude."""

    name: str
    alpha: float
    rank: int | None
    members: Membership


def top(score: Tensor, alpha: float) -> Membership:
    """Membership of the largest scores with total weight alpha n, 0 < alpha < 1."""
    target = alpha * score.numel()
    threshold = score.flatten().kthvalue(score.numel() - math.ceil(target) + 1).values
    inside, tied = score > threshold, score == threshold
    return Membership(inside, tied, (target - int(inside.sum())) / int(tied.sum()))


def mask_rank(rows: int, columns: int) -> int:
    """Rank r of the principal reconstruction: the paper's 64, and an eighth of the smaller side below 512."""
    return max(1, min(64, min(rows, columns) // 8))


def masks(base: Tensor, factors: Factors, alphas: tuple[float, ...]) -> tuple[Mask, ...]:
    """Both masks at every alpha, from W0 [m, n] of the view and its factors (at least mask_rank vectors)."""
    r = mask_rank(*base.shape)
    principal = ((factors.u[:, :r] * factors.s[:r]) @ factors.v[:, :r].T).abs()
    low = -base.abs()
    return tuple(
        Mask(name, alpha, rank, top(score, alpha))
        for alpha in alphas
        for name, rank, score in (("principal", r, principal), ("low_magnitude", None, low))
    )


def rows(masks: tuple[Mask, ...], changed: Tensor, view: str) -> list[dict]:
    """One row per mask; overlap is null where nothing changed. changed: bool [m, n], W_t != W0 in the view."""
    count = int(changed.sum())
    return [
        {
            "view": view,
            "mask": mask.name,
            "alpha": mask.alpha,
            "rank": mask.rank,
            "overlap": mask.members.weight(changed) / count if count else None,
            "density": count / changed.numel(),
            "reason": None if count else "no weight changed",
        }
        for mask in masks
    ]
