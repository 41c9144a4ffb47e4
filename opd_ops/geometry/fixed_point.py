"""Stores bases of subspaces in two or three bytes per number: integers times a power of two, exact in f32.

V [n, K], orthonormal, becomes V~ = q round(V / q), with the smallest power of two q for which the integers fit.
With D = V~ - V and d = ||D_k||_F <= 1/10 of the first k columns of one basis, f of another's,

    ||V~_k' W~_k - V_k' W_k||_F <= g = d + f + d f,
    |Sim_k of V~, W~ - Sim_k of V, W| <= (2 g + g^2 / sqrt(k)) / sqrt(k) <= (2 d + 4 d^2 + 2 f + 4 f^2) / sqrt(k),

so 2 d + 4 d^2 is added to the error of a subspace (`Subspaces.errors`), and `locking` can use a basis that is not
exactly orthonormal. d is computed, not estimated; for Gaussian entries it is near 6e-5 sqrt(k) in two bytes and
2e-7 sqrt(k) in three, for any n. The smallest width is used that adds at most SHARE of the existing error, or at most
FREE to a similarity; otherwise f32.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.linalg import vector_norm

from opd_ops.geometry.update import Subspaces

SHARE = 1 / 8  # fraction of a subspace's own error that rounding may add
FREE = 1e-6  # error of a similarity that rounding may always add
WIDTHS = (2, 3)  # bytes of an integer


def round_subspaces(subspaces: Subspaces) -> Subspaces:
    """The subspaces rounded to the smallest sufficient width, as f32, with their new errors."""
    for width in WIDTHS:
        candidate, added = _of_width(subspaces, width)
        if all(
            more <= max(SHARE * error, FREE * k**0.5)
            for k, error, more, why in zip(subspaces.cuts, subspaces.errors, added, subspaces.reasons, strict=True)
            if why is None
        ):
            return candidate
    return _of_width(subspaces, 4)[0]


def pack(basis: Tensor) -> tuple[Tensor, float]:
    """(integers, unit) that represent a rounded basis exactly: [n, K] int16, or [n, K, 3] uint8 (little-endian).

    A basis that no unit represents exactly is returned unchanged, with unit 1.
    """
    for width in WIDTHS:
        unit = _unit(basis, width)
        integers = (basis.double() / unit).round()
        if torch.equal(integers * unit, basis.double()):
            if width == 2:
                return integers.to(torch.int16), unit
            return integers.to(torch.int32).unsqueeze(-1).view(torch.uint8)[..., :width].contiguous(), unit
    return basis, 1.0


def unpack(stored: Tensor, unit: float) -> Tensor:
    """The inverse of `pack`: the basis in f32, or in its own dtype if it was stored unchanged."""
    if stored.is_floating_point():
        return stored
    if stored.dtype == torch.int16:
        return stored.float() * unit
    whole = torch.zeros(*stored.shape[:2], 4, dtype=torch.uint8)
    whole[..., 1:] = stored
    return (whole.view(torch.int32).squeeze(-1) >> 8).float() * unit


def _of_width(subspaces: Subspaces, width: int) -> tuple[Subspaces, list[float]]:
    """The subspaces in `width` bytes per number, and the error that this adds at each cut."""
    sides = [_nearest(subspaces.side(name), width) for name in ("output", "input")]
    added = [max(_rounding_error(basis, near, k) for basis, near in sides) for k in subspaces.cuts]
    errors = tuple(
        min(max(k**0.5, error), error + more)
        for k, error, more in zip(subspaces.cuts, subspaces.errors, added, strict=True)
    )
    return replace(subspaces, output=sides[0][1], input=sides[1][1], errors=errors), added


def _nearest(basis: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The basis in float64, and rounded to `width` bytes per number, as f32."""
    basis = basis.double()
    if width == 4:
        return basis, basis.float()
    unit = _unit(basis, width)
    return basis, ((basis / unit).round() * unit).float()


def _rounding_error(basis: Tensor, near: Tensor, k: int) -> float:
    """2 d + 4 d^2: the error that rounding the first k columns adds to their subspace."""
    off = float(vector_norm(near[:, :k].double() - basis[:, :k]))
    return 2 * off + 4 * off**2


def _unit(basis: Tensor, width: int) -> float:
    """The smallest power of two q with |entry| / q <= 2^(8 width - 1) - 1 for all entries; 1 if all are zero."""
    largest = float(basis.abs().max()) if basis.numel() else 0.0
    if largest == 0.0:
        return 1.0
    fraction, exponent = math.frexp(largest / (2 ** (8 * width - 1) - 1))
    return math.ldexp(1.0, exponent - (fraction == 0.5))
