"""Eigenvalues and eigenvectors of a symmetric matrix on the CPU, from one reduction to tridiagonal form.

    A = Q T Q'         LAPACK sytrd in A's dtype: 4/3 m^3 operations, nearly all of the work for few vectors
    values             dsterf of T in float64
    vectors            dstemr of T in float64; dstevd for all vectors, or if dstemr fails, as it does for some T with
                       close values (info 22, or an unset column); then multiplied by Q (ormqr), in A's dtype or in
                       f32: 4 m^2 k operations

Values, leading vectors in float64 and all vectors in f32 share one reduction; eigh and block Lanczos would each repeat
it, and Lanczos needs a gap below the last wanted value. Backward error: values are those of A + D, ||D||_2 within the
rounding of `gram`. Not measured: that error; the caller computes residuals.
Source: Golub and Van Loan, Matrix Computations, 8.3; Dhillon and Parlett, SIAM J. Matrix Anal. Appl. 25 (2004).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

SIDE = 3072  # up to which this costs less than eigvalsh (and Lanczos): beyond, MKL's reduction in two stages wins
BLOCK = 64  # columns of LAPACK's blocked products
PREFIX = {torch.float32: "s", torch.float64: "d"}


class Tridiagonal:
    """The reduction of a symmetric matrix whose lower triangle is `formed` [m, m], f32 or float64.

    Errors: ArithmeticError where its dtype cannot hold the reduction, or LAPACK gives up.
    """

    def __init__(self, formed: Tensor) -> None:
        self.prefix = PREFIX[formed.dtype]
        lower = formed.tril()
        matrix = lower.add_(lower.tril(-1).T).numpy().T  # symmetric, so this view in Fortran's order is the matrix
        work, _ = _routine(self.prefix, "sytrd_lwork")(len(matrix), lower=1)
        reduced = _routine(self.prefix, "sytrd")(matrix, lower=1, lwork=int(work), overwrite_a=1)
        self.reflectors, diagonal, beside, self.scales, info = reduced
        self.diagonal, self.beside = diagonal.astype(np.float64), beside.astype(np.float64)
        if info or not (np.isfinite(self.diagonal).all() and np.isfinite(self.beside).all()):
            raise ArithmeticError(f"{formed.dtype} does not hold the tridiagonal form")

    def values(self) -> Tensor:
        """All eigenvalues, float64 [m] descending."""
        values, info = _routine("d", "sterf")(self.diagonal, self.beside)
        if info:
            raise ArithmeticError(f"dsterf gave up ({info})")
        return torch.from_numpy(values).flip(0)

    def vectors(self, k: int) -> Tensor:
        """The k leading eigenvectors [m, k], largest eigenvalue first, in A's dtype."""
        return self._apply_q(self._inner(k), self.prefix)

    def split(self, k: int, end: int) -> tuple[Tensor, Tensor]:
        """The k leading eigenvectors in A's dtype, and the following ones up to `end` in f32, at half the cost."""
        inner = self._inner(end)
        return self._apply_q(inner[:, :k], self.prefix), self._apply_q(inner[:, k:], "s")

    def _inner(self, k: int) -> np.ndarray:
        """The k leading eigenvectors of T, float64 [m, k]."""
        size, beside = len(self.diagonal), np.append(self.beside, 0.0)
        if k < size:
            count, values, vectors, info = _routine("d", "stemr")(
                self.diagonal.copy(), beside.copy(), 2, 0.0, 0.0, size - k + 1, size
            )
            if not info and count == k and self._are_vectors(values[:k], vectors[:, :k]):
                return vectors[:, k - 1 :: -1]
        _, vectors, info = _routine("d", "stevd")(self.diagonal, beside[: max(size - 1, 1)])
        if info:
            raise ArithmeticError(f"dstevd gave up ({info})")
        return vectors[:, ::-1][:, :k]

    def _are_vectors(self, values: np.ndarray, vectors: np.ndarray) -> bool:
        """Whether |T v - value v| is rounding for every column: dstemr can report success and leave a column unset."""
        left = (self.diagonal[:, None] - values) * vectors
        left[1:] += self.beside[:, None] * vectors[:-1]
        left[:-1] += self.beside[:, None] * vectors[1:]
        size = max(np.abs(self.diagonal).max(), np.abs(self.beside).max(initial=0.0))
        lengths = np.abs((vectors * vectors).sum(axis=0) - 1)
        return bool(
            (np.abs(left) <= 1e2 * len(left) * np.finfo(np.float64).eps * size).all() and (lengths <= 1e-6).all()
        )

    def _apply_q(self, inner: np.ndarray, prefix: str) -> Tensor:
        """Q times vectors of T, in one dtype."""
        number = np.float32 if prefix == "s" else np.float64
        vectors = np.array(inner, dtype=number, order="F")
        if vectors.size and len(vectors) > 1:
            with np.errstate(over="ignore"):  # reflectors are at most 1; T shares their array, but is not read here
                reflectors, scales = (part.astype(number, copy=False) for part in (self.reflectors, self.scales))
            # Q does not change the first entry: its reflectors are below the subdiagonal.
            vectors[1:], _, _ = _routine(prefix, "ormqr")(
                "L", "N", reflectors[1:, :-1], scales, np.asfortranarray(vectors[1:]), BLOCK * vectors.shape[1]
            )
        return torch.from_numpy(vectors)


def _routine(prefix: str, name: str) -> Any:
    """A routine of SciPy's LAPACK. Imported at first use, so that the number of threads can be set before."""
    from scipy.linalg import lapack

    return getattr(lapack, prefix + name)
