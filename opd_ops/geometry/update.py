"""The update E = W_t - W0 of one matrix, factored as far as is asked for: norms, spectrum, leading subspaces.

    r <= 512    exact float64 factors
    otherwise   spectrum: f32 Gram matrix and eigvalsh; leading vectors: block Lanczos on that Gram matrix

E is f32 (exact for two bf16 weights within 2^16 of each other), divided by a power of two where its scale would leave
the range of f32 squares (`scale`). Not measured: what made E. Rounding is that of `gram`.
"""

import math
import struct
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.linalg import vector_norm

from opd_ops.geometry import krylov, scale
from opd_ops.geometry.base import EXACT
from opd_ops.geometry.exact import Factors, factor
from opd_ops.geometry.gram import Spectrum, gram, spectrum

CONVERGED = 1e-3  # of the gap below the last wanted value, for leading subspaces


@dataclass(frozen=True)
class Subspaces:
    """Leading singular subspaces of an update: output [m, K], input [n, K], orthonormal; float64 from the exact route,
    f32 otherwise.


    errors: for each cut, a bound on the Frobenius norm of the sines to the true subspace; sqrt(k) says nothing.
    reasons: why there is no subspace at a cut, or None.
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
    """Subspaces of a [out, in] update that has none, for one reason or one a cut."""
    output, given = (torch.zeros(extent, 0) for extent in shape)
    each = (reasons,) * len(cuts) if isinstance(reasons, str) else reasons
    return Subspaces(output, given, cuts, (math.inf,) * len(cuts), each, method)


class Update:
    """E [out, in] f32, or float64 where the exact route is taken. Everything is computed at first use and kept.

    e: E / unit, of largest entry between 2^-24 and 2^24. unit: a power of two, 1 but at extreme scales. spectrum and
    factors are those of e; frobenius, norm and norm_bound are in weight units.
    """

    def __init__(self, e: Tensor, dense: bool = False, vectors: int = 64) -> None:
        """dense: take the exact route whatever the size, as the start does. vectors: the largest cut of `subspaces`.

        Errors: OutOfRange where E has entries that are not finite, as the difference of two f32 may.
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
        """Of random starts: from the digits of ||e||_F, since a fixed one could be known to whoever made E."""
        return int.from_bytes(struct.pack("<d", self._size)[:6], "little")

    @property
    def zero(self) -> bool:
        return self._size == 0.0

    @cached_property
    def factors(self) -> Factors:
        """Exact factors of e; exact route only."""
        return factor(self.e.double(), self.vectors)

    @cached_property
    def _gram(self) -> Tensor:
        return gram(self.near, torch.float32)

    @cached_property
    def _symmetric(self) -> Tensor:
        """The Gram matrix with both triangles."""
        lower = self._gram.tril()
        return lower + lower.tril(-1).T

    def _square(self, x: Tensor) -> Tensor:
        """e e' x."""
        return self.near @ (self.near.T @ x)

    @cached_property
    def spectrum(self) -> Spectrum:
        """All singular values of e."""
        if self.small:
            return self.factors.spectrum
        return spectrum(self.near, torch.float32, self._gram)

    @property
    def norm(self) -> tuple[float, float]:
        """||E||_2 and a bound on its error."""
        return self.unit * float(self.spectrum.values[0]), self.unit * float(self.spectrum.noise[0])

    @cached_property
    def norm_bound(self) -> float:
        """Upper bound on ||E||_2, certain but for a probability of krylov.MISS; no closer than a factor of two or so
        unless the spectrum was asked for before."""
        if self.small or "spectrum" in self.__dict__:
            return sum(self.norm)
        square = krylov.norm_bound(self._square, len(self.near), self.e.device, self.seed)
        if square == 0.0 and not self.zero:
            square = math.inf  # f32 has lost the product; the Frobenius norm bounds it all the same
        return self.unit * min(self._size, 1.001 * square**0.5)

    def undefined(self, k: int) -> str | None:
        """Why there is no top-k subspace, or None where there is."""
        values, noise = self.spectrum.values, self.spectrum.noise
        if k > len(values):
            return f"k={k} exceeds min(m, n)={len(values)}"
        if self.zero:
            return "zero update"
        return None if float(values[k - 1]) > float(noise[k - 1]) else f"sigma_{k} of the update is numerically zero"

    def subspaces(self, cuts: tuple[int, ...]) -> Subspaces:
        """Leading subspaces with the error of their computation at each cut."""
        reasons = tuple(self.undefined(k) for k in cuts)
        wanted = max((k for k, why in zip(cuts, reasons, strict=True) if why is None), default=0)
        if not wanted:
            return no_subspaces(self.e.shape, cuts, reasons, self.spectrum.method)
        if self.small:
            values, residuals, method = self.factors.s, torch.zeros(wanted), self.factors.method
            output, given = self.factors.u[:, :wanted].clone(), self.factors.v[:, :wanted].clone()
        else:
            found = self._leading(cuts, wanted)
            near = torch.linalg.qr(found.vectors).Q
            far = torch.linalg.qr(self.near.T @ near).Q
            values, residuals = found.values.sqrt(), found.residuals
            output, given = (near, far) if self.near is self.e else (far, near)
            method = f"lanczos-{self.spectrum.method}"
        errors = tuple(
            math.inf if why else self._error(k, values, residuals) for k, why in zip(cuts, reasons, strict=True)
        )
        return Subspaces(output.cpu(), given.cpu(), cuts, errors, reasons, method)

    def _leading(self, cuts: tuple[int, ...], wanted: int) -> krylov.Leading:
        squares = self.spectrum.values.square()
        gaps = [(k, float(squares[k - 1]) - float(squares[k]) if k < len(squares) else math.inf) for k in cuts]
        floor = 1e-6 * float(squares[0])  # f32: no iteration gets below it

        def enough(_: Tensor, residuals: Tensor) -> bool:
            return all(
                float(vector_norm(residuals[:k])) <= max(CONVERGED * gap, floor) for k, gap in gaps if k <= wanted
            )

        return krylov.leading(
            lambda x: self._symmetric @ x, len(self.near), wanted, device=self.e.device, block=wanted + 8, enough=enough
        )

    def _error(self, k: int, values: Tensor, residuals: Tensor) -> float:
        """Bound on the Frobenius norm of the sines between computed and true top-k subspace: rho / gap, in sigma^2.

        Vacuous, sqrt(k), where nothing separates sigma_k from sigma_{k+1} or a leading value was not met.
        """
        known, noise = self.spectrum.values, self.spectrum.noise
        rounding = 2 * float(noise[0]) * float(known[0])  # of the Gram matrix, in squared units
        stored = 0.0 if self.small else 4e-7 * k**0.5  # of vectors kept in f32
        rho = float(vector_norm(residuals[:k])) + rounding * k**0.5
        above = max(0.0, float(known[k - 1] - noise[k - 1])) ** 2
        below = self.spectrum.after(k) ** 2
        met = float(values[k - 1]) ** 2 >= above - rho
        apart = min(above, float(values[k - 1]) ** 2) - below - rho
        return min(k**0.5, rho / apart + stored) if met and apart > 0 else k**0.5
