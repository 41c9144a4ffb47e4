"""A subspace of a matrix's rows, columns or both, and the share of an update outside it.

    P(X) = X V V^T (right), U U^T X (left) or U U^T X V V^T (both), U and V with orthonormal columns
    leak of an update D: ||D - P(D)||_F / ||D||_F over all matrices together, in float64

Not measured: the share of an update in the subspace of another run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Subspace:
    """Directions of one matrix W [out, in]: right V [in, K], left U [out, K], float64 with orthonormal columns."""

    right: Tensor | None = None
    left: Tensor | None = None

    def compress(self, x: Tensor) -> Tensor:
        """Coefficients of P(x) in float64, of the same norm: x V [out, K], U^T x [K, in] or U^T x V [K, K]."""
        x = x.double() if self.left is None else self.left.T @ x.double()
        return x if self.right is None else x @ self.right

    def expand(self, coefficients: Tensor) -> Tensor:
        """The matrix [out, in] in float64 that has these coefficients and nothing outside."""
        x = coefficients if self.left is None else self.left @ coefficients
        return x if self.right is None else x @ self.right.T

    def project(self, x: Tensor) -> Tensor:
        """P(x), float64."""
        return self.expand(self.compress(x))

    def to(self, device: torch.device) -> "Subspace":
        right, left = (None if side is None else side.to(device) for side in (self.right, self.left))
        return Subspace(right=right, left=left)


Bases = Mapping[str, Subspace]  # by parameter name


class Leak:
    """||D - P(D)||_F / ||D||_F over updates D of many matrices together, float64; 0 where nothing moved."""

    def __init__(self) -> None:
        self.outside = self.whole = 0.0

    def add(self, subspace: Subspace, update: Tensor) -> None:
        self.outside += float((update - subspace.project(update)).square().sum())
        self.whole += float(update.square().sum())

    @property
    def fraction(self) -> float:
        return math.sqrt(self.outside / self.whole) if self.whole else 0.0
