"""The update E = W_t - W0 of one matrix, factored as far as is asked for: norms, spectrum, leading subspaces.

    r <= 512    exact float64 factors
    otherwise   spectrum: f32 Gram matrix and eigvalsh; leading vectors: block Lanczos on that Gram matrix;
                ||E||_2 alone: block Lanczos on E itself

E is f32 (exact for two bf16 weights within 2^16 of each other). Not measured: what made E. Rounding is that of `gram`.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.linalg import vector_norm

from opd_ops.geometry import krylov
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
    """E [out, in] f32, or float64 where the exact route is taken. Everything is computed at first use and kept."""

    def __init__(self, e: Tensor, dense: bool = False, vectors: int = 64) -> None:
        """dense: take the exact route whatever the size, as the start does. vectors: the largest cut of `subspaces`."""
        self.e, self.vectors = e, vectors
        self.small = dense or min(e.shape) <= EXACT
        self.near = e if e.shape[0] <= e.shape[1] else e.T

    @cached_property
    def frobenius(self) -> float:
        """||E||_F, accumulated in float64."""
        return sum(float(vector_norm(rows, dtype=torch.float64)) ** 2 for rows in self.e.split(256)) ** 0.5

    @property
    def zero(self) -> bool:
        return self.frobenius == 0.0

    @cached_property
    def factors(self) -> Factors:
        """Exact factors; exact route only."""
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
        """E E' x."""
        return self.near @ (self.near.T @ x)

    @cached_property
    def spectrum(self) -> Spectrum:
        """All singular values."""
        if self.small:
            return self.factors.spectrum
        return spectrum(self.near, torch.float32, self._gram)

    @cached_property
    def _norm(self) -> tuple[float, float, float]:
        """||E||_2: estimate, bound on its error where the leading value was met, and upper bound (see `krylov`)."""
        if self.small or "spectrum" in self.__dict__:
            value, noise = float(self.spectrum.values[0]), float(self.spectrum.noise[0])
            return value, noise, value + noise
        size = len(self.near)

        def enough(values: Tensor, residuals: Tensor) -> bool:
            return float(residuals[0]) <= 1e-4 * float(values[0])

        # One vector: matrix-vector products run at memory speed, and a block of sixteen costs six times as much.
        found = krylov.leading(self._square, size, 1, device=self.e.device, block=1, enough=enough, first=8, most=60)
        value, residual = float(found.values[0]) ** 0.5, float(found.residuals[0])
        missed = 0.0 if found.dimension == size else krylov.missed(size, 1, found.dimension)
        error = residual / (2 * value) + 1e-6 * value if value else 0.0
        upper = self.frobenius if missed >= 1.0 else min(self.frobenius, (value + error) / (1.0 - missed) ** 0.5)
        return value, error, upper

    @property
    def norm(self) -> tuple[float, float]:
        """||E||_2 and a bound on its error."""
        return self._norm[:2]

    @cached_property
    def norm_bound(self) -> float:
        """Upper bound on ||E||_2, certain but for a probability of krylov.MISS; no closer than a factor of two or so
        unless the spectrum was asked for before."""
        if self.small or "spectrum" in self.__dict__:
            return self._norm[2]
        square = krylov.norm_bound(self._square, len(self.near), self.e.device)
        known = self._norm[2] if "_norm" in self.__dict__ else self.frobenius
        return min(known, 1.001 * square**0.5)

    @property
    def norm_method(self) -> str:
        return self.spectrum.method if self.small or "spectrum" in self.__dict__ else "lanczos-f32"

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
