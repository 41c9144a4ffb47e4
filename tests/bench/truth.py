"""The float64 reference of the bench: numbers from dense float64 factors, by formulas of their own.

Kept apart from the engine, so that neither can share a mistake with the other but `exact`, which has its own tests.
"""

import torch
from torch import Tensor

from opd_ops.geometry.exact import SIDES, Factors, factor, principal_angles


def factors(w: Tensor, k: int) -> Factors:
    """Float64 factors of a weight [m, n] of any float dtype, with k leading vectors a side."""
    return factor(w.double(), k)


def rotation(before: Factors, after: Factors) -> dict[str, Tensor]:
    """Principal angles in degrees, ascending, by side."""
    return {side: principal_angles(before.basis(side), after.basis(side)) for side in SIDES}


def nss(before: Factors, after: Factors) -> float:
    """||sigma(W_t) - sigma(W0)||_2 / ||sigma(W0)||_2."""
    return float((after.s - before.s).norm() / before.s.norm())


def unchanged(w0: Tensor, w_t: Tensor) -> float:
    """Share of equal weights."""
    return int(torch.count_nonzero(w0 == w_t)) / w0.numel()


def update(w0: Tensor, w_t: Tensor) -> dict[str, float]:
    """Size and concentration of W_t - W0, which is not zero."""
    s = factors(w_t.double() - w0.double(), 0).s
    frobenius = float(s.norm())
    return {
        "frobenius": frobenius,
        "relative_norm": frobenius / float(w0.double().norm()),
        "spectral_norm": float(s[0]),
        "stable_rank": frobenius**2 / float(s[0]) ** 2,
        "effective_rank": float(torch.special.entr(s / s.sum()).sum().exp()),
        "effective_rank_energy": float(torch.special.entr(s.square() / s.square().sum()).sum().exp()),
    }
