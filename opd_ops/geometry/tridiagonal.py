"""All eigenvalues and the leading eigenvectors of a symmetric f32 matrix, from one reduction to tridiagonal form.

    A = Q T Q'                 LAPACK ssytrd in f32: 4/3 m^3 operations, nearly all of the work
    values                     dsterf of T in float64
    leading vectors            dstemr of T in float64, then Q times them (sormqr) in f32: 4 m^2 k operations

A separate eigvalsh and block Lanczos would reduce A once more and iterate; a gap below the last wanted value is not
needed here. Backward error: eigenvalues are those of A + D, ||D||_2 within the rounding of `gram`. Not measured: that
error itself; residuals are the caller's.
Source: Golub and Van Loan, Matrix Computations, 8.3; Dhillon and Parlett, SIAM J. Matrix Anal. Appl. 25 (2004).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = 64  # columns of LAPACK's blocked products


class Tridiagonal:
    """The reduction of a symmetric matrix whose lower triangle is `formed` [m, m], f32 on the CPU.

    Errors: ArithmeticError where f32 cannot hold the reduction, or LAPACK gives up.
    """

    def __init__(self, formed: Tensor) -> None:
        lapack = _lapack()
        lower = formed.tril()
        matrix = lower.add_(lower.tril(-1).T).numpy().T  # symmetric, so this view in Fortran's order is the matrix
        work, _ = lapack.ssytrd_lwork(len(matrix), lower=1)
        self.reflectors, diagonal, beside, self.scales, info = lapack.ssytrd(
            matrix, lower=1, lwork=int(work), overwrite_a=1
        )
        self.diagonal, self.beside = diagonal.astype(np.float64), beside.astype(np.float64)
        if info or not (np.isfinite(self.diagonal).all() and np.isfinite(self.beside).all()):
            raise ArithmeticError("f32 does not hold the tridiagonal form")

    def values(self) -> Tensor:
        """All eigenvalues, float64 [m] ascending."""
        values, info = _lapack().dsterf(self.diagonal, self.beside)
        if info:
            raise ArithmeticError(f"dsterf gave up ({info})")
        return torch.from_numpy(values)

    def leading(self, k: int) -> Tensor:
        """The k leading eigenvectors [m, k], f32, largest eigenvalue first."""
        lapack = _lapack()
        size = len(self.diagonal)
        beside = np.append(self.beside, 0.0)
        count, _, vectors, info = lapack.dstemr(self.diagonal.copy(), beside, 2, 0.0, 0.0, size - k + 1, size)
        if info or count < k:
            raise ArithmeticError(f"dstemr gave up ({info})")
        wanted = np.array(vectors[:, k - 1 :: -1] if k > 1 else vectors[:, :1], dtype=np.float32, order="F")
        if size > 1:
            rotated, _, _ = lapack.sormqr("L", "N", self.reflectors[1:, :-1], self.scales, wanted[1:], BLOCK * k)
            wanted[1:] = rotated
        return torch.from_numpy(wanted)


def _lapack() -> Any:
    """SciPy's LAPACK, whose stubs lack these routines; loaded at first use, so that threads can still be set."""
    from scipy.linalg import lapack

    return lapack
