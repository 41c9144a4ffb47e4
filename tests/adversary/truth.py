"""What is true of two weights: float64 LAPACK on inputs rescaled by a power of two, and how far that can be trusted.

The oracle: it shares no code with the engine but the two definitions that need none, `views` and principal angles by
their sines. blur is the error of the oracle's own numbers, which no check may count against the engine.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

BACKWARD = 2e-14  # relative to sigma_1: what LAPACK's factors are exact for


@dataclass(frozen=True)
class Oracle:
    """One float64 matrix [m, n]: its singular values [r] in weight units / `unit`, and vectors."""

    weight: Tensor

    @cached_property
    def unit(self) -> float:
        largest = float(self.weight.abs().max())
        return math.ldexp(1.0, math.frexp(largest)[1]) if largest else 1.0

    @cached_property
    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """u [m, r], s [r] in units of `unit`, v [n, r]."""
        u, s, vt = torch.linalg.svd(self.weight / self.unit, full_matrices=False)
        return u, s, vt.T

    @property
    def s(self) -> Tensor:
        return self.factors[1]

    @property
    def zero(self) -> bool:
        return not bool(self.weight.any())

    def basis(self, side: str, k: int) -> Tensor:
        return self.factors[0 if side == "output" else 2][:, :k]

    def blur(self, k: int) -> float:
        """Radians by which the top-k subspace of the factors may be off; pi / 2 where the cut is not there."""
        gap = float(self.s[k - 1]) - (float(self.s[k]) if k < len(self.s) else 0.0)
        shift = BACKWARD * float(self.s[0])
        return math.asin(shift / gap) if gap > shift else math.pi / 2


def angles(before: Oracle, after: Oracle, side: str, k: int) -> Tensor:
    """Principal angles in degrees, ascending [k]."""
    a, b = before.basis(side, k), after.basis(side, k)
    inner = a.T @ b
    cosines = torch.linalg.svdvals(inner).clamp(max=1.0)
    sines = torch.linalg.svdvals(b - a @ inner).flip(0).clamp(max=1.0)
    radians = torch.where(cosines**2 >= 0.5, torch.asin(sines), torch.acos(cosines))
    return torch.rad2deg(radians).sort().values
