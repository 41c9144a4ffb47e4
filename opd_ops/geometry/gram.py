"""Gram matrices G = A A' of the smaller side, and singular values from them: sigma_i = sqrt(lambda_i(G)).

Rounding: |lambda_i - true| <= eta sigma_1^2 with eta = 4 sqrt(max(m, n)) eps, the random-rounding model with a safety
of 4 (worst case: max(m, n) eps). Hence |d sigma_i| <= min(eta sigma_1^2 / sigma_i, sqrt(eta) sigma_1): squaring costs
digits of the small values only. eps is that of `dtype`: float64 for spectra that are compared (NSS), f32 for shapes of
spectra (effective rank), where 1e-5 of sigma_1 does not matter.
Source: Higham and Mary, SIAM J. Sci. Comput. 41 (2019); Golub and Van Loan, Matrix Computations, 8.6.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opd_ops.geometry.tridiagonal import SIDE, Tridiagonal

COLUMNS = 1024  # columns of A converted at a time, so that no whole copy of A in another dtype exists


@dataclass(frozen=True)
class Spectrum:
    """values: all singular values, float64 [r] descending. noise: bound on |d sigma_i|, float64 [r]. method: route."""

    values: Tensor
    noise: Tensor
    method: str

    def upper_bound_after(self, k: int) -> float:
        """sigma_{k+1} with its noise added: an upper bound; 0 past the last value."""
        return float(self.values[k] + self.noise[k]) if k < len(self.values) else 0.0


def gram(a: Tensor, dtype: torch.dtype) -> Tensor:
    """A A' in dtype for A [m, n]. Only the lower triangle is guaranteed."""
    total = torch.zeros(len(a), len(a), dtype=dtype, device=a.device)
    if a.is_cuda:
        for block in a.split(COLUMNS, dim=1):
            block = block.to(dtype)
            total.addmm_(block, block.T)
        return total
    from scipy.linalg import blas

    rank_k: Any = blas.get_blas_funcs("syrk", dtype={torch.float64: "f8", torch.float32: "f4"}[dtype])
    # BLAS is column-major: total.T is its Fortran view, and of a block one of the two orders is one without a copy.
    sums = total.numpy().T
    blocks = (a,) if a.dtype == dtype and (a.is_contiguous() or a.T.is_contiguous()) else a.split(COLUMNS, dim=1)
    for block in blocks:
        block = block.to(dtype)
        if block.T.is_contiguous():
            sums = rank_k(1.0, block.T.numpy().T, beta=1.0, c=sums, trans=0, lower=0, overwrite_c=1)
        else:
            sums = rank_k(1.0, block.contiguous().numpy().T, beta=1.0, c=sums, trans=1, lower=0, overwrite_c=1)
    return torch.from_numpy(sums.T)


def rounding_bound(rows: int, columns: int, dtype: torch.dtype) -> float:
    """eta of the bound in the module's docstring."""
    return 4.0 * max(rows, columns) ** 0.5 * torch.finfo(dtype).eps


def spectrum(a: Tensor, dtype: torch.dtype = torch.float64, formed: Tensor | None = None) -> Spectrum:
    """All singular values of A [m, n]. formed: the Gram matrix of its smaller side, if the caller has it."""
    near = a if a.shape[0] <= a.shape[1] else a.T
    return from_squares(eigenvalues(gram(near, dtype) if formed is None else formed), a, dtype)


def from_squares(squares: Tensor, a: Tensor, dtype: torch.dtype) -> Spectrum:
    """The spectrum of A [m, n] from the eigenvalues of its Gram matrix, descending, which was formed in `dtype`."""
    values = squares.double().clamp(min=0.0).sqrt()
    method = f"gram-{'f64' if dtype == torch.float64 else 'f32'}"
    return Spectrum(values, noise(values, rounding_bound(len(a), a.shape[1], dtype)), method)


def eigenvalues(formed: Tensor) -> Tensor:
    """Eigenvalues, descending, of a symmetric matrix given by its lower triangle. Uses float64 if f32 fails.

    LAPACK's f32 routines divide by squares of off-diagonal entries. These underflow next to zero rows, which sparse
    updates have, and the routine then fails or returns NaN.
    """
    if not formed.is_cuda and 1 < len(formed) <= SIDE:
        with suppress(ArithmeticError):
            return Tridiagonal(formed).values()
    if formed.dtype != torch.float64:
        with suppress(RuntimeError):  # LinAlgError
            values = torch.linalg.eigvalsh(formed)
            if bool(torch.isfinite(values).all()):
                return values.flip(0)
    return torch.linalg.eigvalsh(formed.double()).flip(0)


def noise(values: Tensor, eta: float) -> Tensor:
    """min(eta sigma_1^2 / sigma_i, sqrt(eta) sigma_1) for descending values [r]."""
    first = values[0]
    return torch.minimum(eta * first * (first / values.clamp(min=1e-300)), eta**0.5 * first)
