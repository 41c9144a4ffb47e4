"""Exact factors A = U diag(s) V' and the angles between subspaces: the only numerical kernels of this room.

Two routes, chosen by shape so that a matrix always takes the same one:

    svd-f64   min(m, n) <= 64    LAPACK gesdd.  |d sigma_k| <= c eps sigma_1
    gram-f64  otherwise          `linalg.gram_factors`.
                                 |d sigma_k| <= c eps sigma_1^2 / sigma_k: squaring costs digits of the small sigma

with eps = 2^-52 and c = max(m, n), the customary stand-in for LAPACK's "modest polynomial" (observed errors are nearer
its root). Not measured: error already in A, and anything past `vectors` leading vectors, which are dropped.
Source: Golub and Van Loan, Matrix Computations, 8.6; Bjorck and Golub, Math. Comp. 27 (1973).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from opd_ops.geometry import scale
from opd_ops.geometry.gram import Spectrum, noise
from opd_ops.linalg import gram_factors

EPS = torch.finfo(torch.float64).eps
SVD_LIMIT = 64
SIDES = ("output", "input")


@dataclass(frozen=True)
class Factors:
    """Leading singular triplets of A [m, n], float64: u [m, q], all of s [r] descending, v [n, q]; r = min(m, n)."""

    u: Tensor
    s: Tensor
    v: Tensor
    method: str

    def basis(self, side: str) -> Tensor:
        """u for the output side of an [out, in] weight, v for its input side."""
        return {"output": self.u, "input": self.v}[side]

    def sigma(self, k: int) -> float:
        """sigma_k counted from 1; 0 past the last one."""
        return float(self.s[k - 1]) if k <= len(self.s) else 0.0

    def noise(self, k: int) -> float:
        """Bound on the relative rounding error of sigma_k: c eps (sigma_1 / sigma_k)^p, p = 1 for svd, 2 for Gram."""
        if self.sigma(k) == 0.0:
            return float("inf")
        power = 2 if self.method == "gram-f64" else 1
        return max(len(self.u), len(self.v)) * EPS * (self.sigma(1) / self.sigma(k)) ** power

    @cached_property
    def spectrum(self) -> Spectrum:
        """All singular values with the absolute form of `noise`, which is sqrt(c eps) sigma_1 at most."""
        if self.sigma(1) == 0.0:
            return Spectrum(self.s, torch.zeros_like(self.s), self.method)
        c = max(len(self.u), len(self.v)) * EPS
        if self.method == "svd-f64":
            return Spectrum(self.s, torch.full_like(self.s, c * self.sigma(1)), self.method)
        return Spectrum(self.s, noise(self.s, c), self.method)

    def resolves(self, k: int) -> bool:
        """Whether sigma_k is above the route's rounding floor, so that the k leading vectors mean something."""
        return self.noise(k) < 1.0


def factorise(a: Tensor, vectors: int) -> Factors:
    """Factors of a [m, n] with min(vectors, m, n) leading vectors a side. Finite for every finite a, zero included.

    Signs of vectors are those of the route and carry no meaning. ValueError unless a is a float64 matrix.
    """
    if a.ndim != 2 or a.dtype != torch.float64:
        raise ValueError(f"factor takes a float64 matrix, got {a.dtype} of shape {tuple(a.shape)}")
    if power := scale.exponent(scale.largest(a)):
        scaled = factorise(scale.multiply(a, -power), vectors)
        return replace(scaled, s=scaled.s * scale.unit(power))
    if min(a.shape) <= SVD_LIMIT:
        u, s, vt = torch.linalg.svd(a, full_matrices=False)
        # Clones, so that the dropped vectors can be freed.
        return Factors(u[:, :vectors].clone(), s, vt[:vectors].T.clone(), "svd-f64")
    return Factors(*gram_factors(a, vectors), "gram-f64")


def principal_angles(q0: Tensor, q1: Tensor) -> Tensor:
    """Principal angles in degrees between span(q0) and span(q1), float64 [k] ascending; q0, q1 [n, k] orthonormal.

    cos theta_i = sigma_i(q0' q1) from 45 degrees up, sin theta_i = sigma_{k+1-i}((I - q0 q0') q1) below, where the
    arccos would lose half the digits: absolute error a few eps (1e-14 degrees) at every angle. Equal bases, and bases
    of the whole space (k = n), give exact zeros.
    """
    k = q0.shape[1]
    if k == q0.shape[0] or torch.equal(q0, q1):
        return torch.zeros(k, dtype=torch.float64, device=q0.device)
    inner = q0.T @ q1
    cosine = torch.linalg.svdvals(inner).clamp(max=1.0)
    sine = torch.linalg.svdvals(q1 - q0 @ inner).flip(0).clamp(max=1.0)
    radians = torch.where(cosine**2 >= 0.5, torch.asin(sine), torch.acos(cosine))
    return torch.rad2deg(radians).sort().values
