"""Base factors of W0, which all snapshots of all runs need: computed once and cached under W0's digest.

    near side   the smaller side; A = W0, or W0' if W0 is taller than wide, so that A is [m, n] with m <= n
    u, s, v     top-Q singular triplets of A (float64) and its whole spectrum, from the float64 Gram matrix of A
    guard       the next left singular vectors, bf16: only a preconditioner for the tail equation of `drr`
    residual    hypot(||A v - u s||_F, ||A' u - v s||_F) plus its rounding: A is within `residual` of a matrix that has
                exactly these triplets. Certificates use it as the error of the factors

Not measured: W_t. Sizes: 8 Q (m + n) + 8 m + 2 G m bytes. Source: Golub and Van Loan, 8.6.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import vector_norm

from opd_ops.geometry.gram import COLUMNS, Spectrum, gram, noise, rounding_bound
from opd_ops.geometry.tridiagonal import Tridiagonal

GUARD = 1  # rows of A per guard vector; 1 stores all singular vectors past Q
EXTRA = 8  # columns solved past the largest cut
EXACT = 512  # min(m, n) up to which dense float64 factors are the cheapest route


class Cache(Protocol):
    """A cache of tensors that belong to one W0, keyed by its `digest`. `load` returns None for an unusable entry."""

    def load(self, key: str, name: str) -> dict[str, Tensor] | None: ...

    def save(self, key: str, name: str, tensors: dict[str, Tensor]) -> None: ...


def digest(w: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of a weight."""
    total = hashlib.sha256(f"{w.dtype} {tuple(w.shape)}".encode())
    for rows in w.split(max(1, (1 << 22) // max(1, w[0].numel()))):
        total.update(rows.contiguous().view(torch.uint8).cpu().numpy().data)
    return total.hexdigest()


def factor_width(cuts: tuple[int, ...]) -> int:
    """Q, the number of triplets, for the largest cut k: max(96, 2 k)."""
    return max(96, 2 * max(cuts, default=0))


def is_certifiable(shape: tuple[int, ...], cuts: tuple[int, ...]) -> bool:
    """Whether to use Rayleigh-Ritz: min(m, n) exceeds EXACT and twice the width of the Ritz bases."""
    return min(shape) > max(EXACT, 2 * (factor_width(cuts) + max(cuts, default=0) + EXTRA))


@dataclass(frozen=True)
class BaseFactors:
    """u [m, Q], s [m], v [n, Q] float64; guard [m, G] bf16; residual in weight units; turned: A is W0'."""

    u: Tensor
    s: Tensor
    v: Tensor
    guard: Tensor
    residual: float
    turned: bool

    @property
    def width(self) -> int:
        return self.u.shape[1]

    @cached_property
    def frames(self) -> tuple[Tensor, Tensor, Tensor]:
        """u, v and the guard in f32; the guard is made orthogonal to u, which it is not exactly in bf16."""
        u, guard = self.u.float(), self.guard.float()
        return u, self.v.float(), guard - u @ (u.T @ guard)

    @cached_property
    def spectrum(self) -> Spectrum:
        shape = (len(self.u), len(self.v))
        return Spectrum(self.s, noise(self.s, rounding_bound(*shape, torch.float64)), "gram-f64")

    def tensors(self) -> dict[str, Tensor]:
        """The tensors to store; `from_tensors` is the inverse."""
        facts = torch.tensor([self.residual, float(self.turned)], dtype=torch.float64)
        return {"u": self.u, "s": self.s, "v": self.v, "guard": self.guard, "facts": facts}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> "BaseFactors":
        residual, turned = tensors["facts"].tolist()
        parts = {name: tensors[name] for name in ("u", "s", "v", "guard")}
        return BaseFactors(**parts, residual=residual, turned=bool(turned))

    def scaled(self, factor: float) -> "BaseFactors":
        """The factors of A * factor, a power of two."""
        return self if factor == 1.0 else replace(self, s=self.s * factor, residual=self.residual * factor)

    def to(self, device: str) -> "BaseFactors":
        return BaseFactors.from_tensors({name: tensor.to(device) for name, tensor in self.tensors().items()})


def factorise_base(w0: Tensor, q: int) -> BaseFactors:
    """Base factors of a weight [out, in] of any float dtype, with min(q, m) triplets."""
    turned = w0.shape[0] > w0.shape[1]
    a = w0.T if turned else w0
    squares, u, guard = _leading(gram(a, torch.float64), q)
    s = squares.clamp(min=0.0).sqrt()
    v, triangle = torch.linalg.qr(far_product(a, u))
    v = v * torch.where(triangle.diagonal() < 0, -1.0, 1.0)
    image = near_product(a, v)
    s[: u.shape[1]] = (u * image).sum(0)
    top = s[: u.shape[1]]
    residual = torch.hypot(vector_norm(image - u * top), vector_norm(far_product(a, u) - v * top))
    allowance = rounding_bound(len(a), a.shape[1], torch.float64) * float(vector_norm(top))
    return BaseFactors(u, s, v, guard, float(residual) + allowance, turned)


def _leading(formed: Tensor, q: int) -> tuple[Tensor, Tensor, Tensor]:
    """All eigenvalues descending, the first q eigenvectors (float64), and the guard after them (bf16)."""
    size = len(formed)
    end = min(size, q + size // GUARD)
    if formed.is_cuda:
        squares, vectors = torch.linalg.eigh(formed, UPLO="L")
        squares, vectors = squares.flip(0), vectors.flip(1)
        return squares, vectors[:, :q].contiguous(), vectors[:, q:end].to(torch.bfloat16)
    reduced = Tridiagonal(formed)
    del formed  # frees m x m float64 for the vectors below
    u, rest = reduced.split(min(q, size), end)
    u = torch.linalg.qr(u).Q  # orthonormal up to rounding for either LAPACK routine
    return reduced.values(), u, rest.to(torch.bfloat16)


def far_product(a: Tensor, u: Tensor) -> Tensor:
    """A' u in float64, block by block."""
    return torch.cat([block.to(torch.float64).T @ u for block in a.split(COLUMNS, dim=1)])


def near_product(a: Tensor, v: Tensor) -> Tensor:
    """A v in float64, block by block."""
    blocks = zip(a.split(COLUMNS, dim=1), v.split(COLUMNS), strict=True)
    return sum((block.to(torch.float64) @ rows for block, rows in blocks), torch.zeros(len(a), v.shape[1]).to(v))
