"""Norms, spectrum and leading subspaces of the update E = W_t - W0 of one matrix, computed on demand.

    r <= 512     exact float64 factors
    r <= 3072    f32 Gram matrix, reduced to tridiagonal form once: spectrum and leading vectors (`tridiagonal`)
    otherwise    spectrum: f32 Gram matrix and eigvalsh; leading vectors: block Lanczos on that Gram matrix

Leading vectors of the last two routes are refined on E in float64, which also bounds their errors (`refined`).

E is f32 (exact for two bf16 weights within 2^16 of each other), divided by a power of two if f32 squares would leave
their range (`scale`). Not measured: the cause of E. Rounding: as in `gram`.
"""

import math
import struct
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.linalg import vector_norm

from opd_ops.geometry import krylov, scale
from opd_ops.geometry.base import EXACT, near_product
from opd_ops.geometry.exact import Factors, factorise
from opd_ops.geometry.gram import Spectrum, eigenvalues, from_squares, gram
from opd_ops.geometry.refined import Refined, refine_basis
from opd_ops.geometry.tridiagonal import SIDE, Tridiagonal

EXTRA = 8  # vectors past the last wanted one
CONVERGED = 1e-3  # Lanczos ends at this residual, relative to the gap below the last wanted value
NOISE = 8.0  # or at this multiple of an f32 product's rounding; f32 arithmetic stalls at 3 to 5 times it
STORED = 4e-7  # error, as a sine, of rounding a vector to f32


@dataclass(frozen=True)
class Subspaces:
    """Leading singular subspaces of an update: output [m, K], input [n, K], orthonormal; float64 if exact, else f32.

    errors: for each cut, a bound on the Frobenius norm of the sines to the true subspace; sqrt(k) is the trivial bound.
    reasons: for each cut, why there is no subspace, or None.
    """

    output: Tensor
    input: Tensor
    cuts: tuple[int, ...]
    errors: tuple[float, ...]
    reasons: tuple[str | None, ...]
    method: str

    def side(self, name: str) -> Tensor:
        return {"output": self.output, "input": self.input}[name]

    @property
    def extents(self) -> dict[str, int]:
        """Dimension of each side's whole space."""
        return {"output": len(self.output), "input": len(self.input)}


def no_subspaces(
    shape: tuple[int, ...], cuts: tuple[int, ...], reasons: str | tuple[str | None, ...], method: str = "equality"
) -> Subspaces:
    """Empty subspaces of an update [out, in]. reasons: one for all cuts, or one per cut."""
    left, right = (torch.zeros(extent, 0) for extent in shape)
    by_cut = (reasons,) * len(cuts) if isinstance(reasons, str) else reasons
    return Subspaces(left, right, cuts, (math.inf,) * len(cuts), by_cut, method)


class Update:
    """E [out, in] in f32, or float64 on the exact route. Results are computed at first use and cached.

    e: E / unit, with its largest entry between 2^-24 and 2^24. unit: a power of two, 1 except at extreme scales.
    spectrum and factors are of e; frobenius, norm and norm_bound are in weight units.
    """

    def __init__(self, e: Tensor, dense: bool = False, vectors: int = 64) -> None:
        """dense: take the exact route for any size. vectors: the largest cut of `subspaces`.

        Errors: OutOfRange if an entry of E is not finite, which the difference of two f32 numbers may be.
        """
        size = scale.largest(e)
        if not math.isfinite(size):
            raise scale.OutOfRange("W_t - W0 exceeds the largest f32")
        self.exponent = scale.exponent(size)
        self.e, self.unit, self.vectors = scale.multiply(e, -self.exponent), scale.unit(self.exponent), vectors
        self.small = dense or min(e.shape) <= EXACT
        self.near = self.e if e.shape[0] <= e.shape[1] else self.e.T

    @cached_property
    def _size(self) -> float:
        """||e||_F."""
        return scale.frobenius(self.e)

    @property
    def frobenius(self) -> float:
        """||E||_F, accumulated in float64."""
        return self.unit * self._size

    @cached_property
    def seed(self) -> int:
        """Seed of random starts, from the digits of ||e||_F, so that E cannot be constructed against a fixed seed."""
        return int.from_bytes(struct.pack("<d", self._size)[:6], "little")

    @property
    def zero(self) -> bool:
        return self._size == 0.0

    @cached_property
    def factors(self) -> Factors:
        """Exact factors of e; exact route only."""
        return factorise(self.e.double(), self.vectors)

    @cached_property
    def _gram(self) -> Tensor:
        """The lower triangle of e e', f32; of the smaller side."""
        return gram(self.near, torch.float32)

    @cached_property
    def _reduced(self) -> Tridiagonal | None:
        """The Gram matrix in tridiagonal form, if that is the fastest route to spectrum and leading vectors."""
        if self.e.is_cuda or len(self.near) > SIDE:
            return None
        try:
            return Tridiagonal(gram(self.near, torch.float32))
        except ArithmeticError:
            return None

    def _square(self, x: Tensor) -> Tensor:
        """e e' x."""
        return self.near @ (self.near.T @ x)

    @cached_property
    def spectrum(self) -> Spectrum:
        """All singular values of e."""
        if self.small:
            return self.factors.spectrum
        squares = eigenvalues(self._gram) if self._reduced is None else self._reduced.values()
        return from_squares(squares, self.near, torch.float32)

    @property
    def norm(self) -> tuple[float, float]:
        """||E||_2 and a bound on its error."""
        return self.unit * float(self.spectrum.values[0]), self.unit * float(self.spectrum.noise[0])

    @cached_property
    def norm_bound(self) -> float:
        """Upper bound on ||E||_2 with failure probability krylov.MISS.

        It is within about a factor of two, or tight if the spectrum is computed already.
        """
        if self.small or "spectrum" in self.__dict__:
            return sum(self.norm)
        square = krylov.norm_bound(self._square, len(self.near), self.e.device, self.seed)
        if square == 0.0 and not self.zero:
            square = math.inf  # f32 has lost the product; the Frobenius norm bounds it all the same
        return self.unit * min(self._size, 1.001 * square**0.5)

    def undefined(self, k: int) -> str | None:
        """The reason why there is no top-k subspace, or None if there is one."""
        values, noise = self.spectrum.values, self.spectrum.noise
        if k > len(values):
            return f"k={k} exceeds min(m, n)={len(values)}"
        if self.zero:
            return "zero update"
        return None if float(values[k - 1]) > float(noise[k - 1]) else f"sigma_{k} of the update is numerically zero"

    def subspaces(self, cuts: tuple[int, ...]) -> Subspaces:
        """Leading subspaces with error bounds at each cut."""
        reasons = tuple(self.undefined(k) for k in cuts)
        wanted = max((k for k, why in zip(cuts, reasons, strict=True) if why is None), default=0)
        if not wanted:
            return no_subspaces(self.e.shape, cuts, reasons, self.spectrum.method)
        if self.small:
            leading, way = self._exact(wanted), ""
        else:
            leading = refine_basis(self.near, self._approximate(cuts, wanted))
            way = "lanczos-" if self._reduced is None else "tridiagonal-"
        sides = (leading.near, leading.far) if self.near is self.e else (leading.far, leading.near)
        dtype = torch.float64 if self.small else torch.float32
        outputs, inputs = (side[:, :wanted].to("cpu", dtype).contiguous() for side in sides)
        stored = 0.0 if self.small else STORED
        errors = tuple(
            math.inf if why else min(k**0.5, leading.error(k, self.spectrum, self._size) + stored * k**0.5)
            for k, why in zip(cuts, reasons, strict=True)
        )
        return Subspaces(outputs, inputs, cuts, errors, reasons, f"{way}{self.spectrum.method}")

    def _exact(self, wanted: int) -> Refined:
        """Subspaces of the exact route. Their rounding, in squared units, replaces computed residuals."""
        known, noise = self.spectrum.values, self.spectrum.noise
        rounding = 2 * float(noise[0]) * float(known[0])
        u, v = self.factors.u[:, :wanted], self.factors.v[:, :wanted]
        near, far = (u, v) if self.near is self.e else (v, u)
        residuals = torch.zeros(wanted, dtype=torch.float64)
        return Refined(near, far, known[:wanted].square(), residuals, rounding)

    def _approximate(self, cuts: tuple[int, ...], wanted: int) -> Tensor:
        """Leading vectors [m, wanted + EXTRA] of e e' to f32 accuracy. The extra vectors tighten the bounds."""
        width = min(wanted + EXTRA, len(self.near))
        if self._reduced is not None:
            return self._reduced.vectors(width)
        squares = self.spectrum.values.square()
        gaps = [(k, float(squares[k - 1]) - float(squares[k]) if k < len(squares) else math.inf) for k in cuts]
        lower = self._gram.tril()
        symmetric = lower.add_(lower.tril(-1).T)

        def enough(leading: krylov.Leading) -> bool:
            # Iteration cannot reduce the residual below the product's rounding; `refine_basis` follows in float64.
            v = leading.vectors[:, :wanted]
            noise = (symmetric @ v).double() - near_product(symmetric, v.double())
            return all(
                float(vector_norm(leading.residuals[:k]))
                <= max(CONVERGED * gap, NOISE * float(vector_norm(noise[:, :k])))
                for k, gap in gaps
                if k <= wanted
            )

        return krylov.leading_eigenpairs(
            lambda x: symmetric @ x, len(self.near), width, device=self.e.device, block=width, enough=enough
        ).vectors
