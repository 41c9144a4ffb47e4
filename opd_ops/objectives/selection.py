"""Token selection: train the n of a response's T tokens that rank highest, each weighted by T / n.

n = max(1, keep * T rounded to the nearest, halves up). Ties go to the earlier position. The factors of a response add
up to T, so a loss keeps its denominator and its scale; where the ranking does not look at what is being averaged
(`random`) the expected gradient is the unselected one's.

    gap           log s(y) - log T(y) of the sampled token y, largest first: where the student is over-confident
    absolute-gap  its absolute value          random           a uniform draw
    teacher-entropy, student-entropy          most uncertain first

Not measured: the gradient of what is left out; ranked by the gap, the kept advantages are mostly of one sign.
Source: arXiv 2606.07082, appendix G.2, for `gap` and `random`.
"""

import math

import torch
from torch import Tensor

from opd_ops.recipe.opd import Selection


@torch.no_grad()
def factors(
    spec: Selection,
    mask: Tensor,
    log_ratio: Tensor,
    teacher_entropy: Tensor,
    student_entropy: Tensor,
    draws: Tensor | None = None,
) -> Tensor:
    """Factors [B, R] fp32: T / n on kept tokens, 0 elsewhere. All inputs [B, R]; draws are uniforms for `random`.

    Each row depends on itself alone, and not on its padding. Errors: ValueError for `random` without draws.
    """
    if spec.by == "random" and draws is None:
        raise ValueError("selecting at random needs draws")
    ranked = {
        "gap": log_ratio,
        "absolute-gap": log_ratio.abs(),
        "random": draws,
        "teacher-entropy": teacher_entropy,
        "student-entropy": student_entropy,
    }[spec.by]
    assert ranked is not None
    masked = mask > 0
    order = ranked.masked_fill(~masked, -math.inf).argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1)
    total = masked.sum(-1, keepdim=True)
    count = (spec.keep * total.double() + 0.5).floor().clamp(min=1)
    return torch.where(masked & (rank < count), total / count, 0.0).float()
