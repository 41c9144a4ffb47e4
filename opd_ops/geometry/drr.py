"""Difference-form Rayleigh-Ritz (DRR): leading singular triplets of W_t relative to those of W0, from E = W_t - W0.

With W0 = U S V' + (rest) known (`base`), all changes are computed from E, so a rotation of 0.001 degrees keeps its
digits in f32. A = W_t or W_t' with m <= n. W' below is the part of W outside span U and span V.

    1. in space   K = S + U'E V, svd in float64: mixing of nearly equal values around a cut is exact
    2. tail       for i <= k + 8:  (s_i^2 - W'W'^T) x_i = s_i p_i + W' r_i,   y_i = (r_i + W'^T x_i) / s_i,
                  p, r = the parts of E V and E'U outside; first W0's equation is solved with its guard vectors, then
                  W_t's by conjugate gradients with the same preconditioner
    3. Ritz       svd in float64 of W_t compressed to [U, X] and [V, Y], assembled from differences

    4. check      residuals R1 = A v - s u and R2 = A'u - s v of the leading triplets, from their vectors in float64,
                  and the deviation of [U, X] and [V, Y] from orthonormal

    Output: W_t's triplets as coefficients in [U, X] and [V, Y]; sines of angles are singular values of near[k:, :k].
    Tail columns that vanish or lie in span U are replaced by random directions outside it; axis-aligned U and sparse E
    have such tails.
    Cost: 2 m n (2 Q + (k + 8)(3 + 2 iterations)) + 4 m^2 (k + 8)(1 + iterations) f32 operations, and
    4 m n k in float64, Q = base width.

Not measured: singular values past k + 8, and directions that [U, X] misses; `certificate` bounds those.
Source: Sternheimer's equation with Rayleigh-Ritz; Nakatsukasa, Math. Comp. 89 (2020), for why residuals outside matter.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from opd_ops.geometry.base import EXTRA, BaseFactors, far_product, near_product
from opd_ops.geometry.gram import rounding_bound
from opd_ops.geometry.scale import OutOfRange, frobenius

TAIL_TOLERANCE = 0.1  # relative residual of the tail equation; the error of an angle is about its square
MOST = 12  # conjugate gradient steps
LEAST = 1e-7  # of the largest singular value: smaller values are clamped to it in the tail equation
ATTEMPTS = 4  # at finding a basis outside another


@dataclass(frozen=True)
class Ritz:
    """p = Q + k + 8 Ritz triplets of W_t, float64.

    values [p] descending; near, far [p, p] orthogonal: coefficients in [U, X] and [V, Y], column i of triplet i.
    near_residual, far_residual [p, p]: Gram matrices of the parts of A v_i - s_i u_i and A'u_i - s_i v_i outside those
    spaces, formed from f32 vectors before squaring. residual_noise [p]: rounding error of these vectors. noise:
    allowance for f32 rounding, as the norm of a perturbation of E. defect: measured spectral norm by which [U, X] and
    [V, Y] deviate from orthonormal. iterations: conjugate gradient steps.

    outside [k]: norms of the residuals (A v - s u, A'u - s v) of the k leading triplets outside of [U, X] and [V, Y],
    from their vectors in float64. Their part inside is included in `noise` if it exceeds the allowance.
    """

    values: Tensor
    near: Tensor
    far: Tensor
    near_residual: Tensor
    far_residual: Tensor
    residual_noise: Tensor
    width: int
    noise: float
    iterations: int
    defect: float
    outside: Tensor

    def tilt(self, k: int) -> float:
        """Spectral norm of the part of the k leading vectors in X or Y, 0 to 1."""
        sides = (side[self.width :, :k] for side in (self.near, self.far))
        return min(1.0, max(float(torch.linalg.matrix_norm(side, 2)) for side in sides))

    def sines(self, k: int, far: bool) -> Tensor:
        """Sines of the k principal angles to W0's top-k subspace, ascending; k <= width."""
        coefficients = self.far if far else self.near
        return torch.linalg.svdvals(coefficients[k:, :k]).flip(0).clamp(max=1.0)

    def angles(self, k: int, far: bool) -> Tensor:
        """The k principal angles in degrees, ascending; from sines below 45 degrees, from cosines above."""
        sine = self.sines(k, far)
        cosine = torch.linalg.svdvals((self.far if far else self.near)[:k, :k]).clamp(max=1.0)
        radians = torch.where(sine**2 <= 0.5, torch.asin(sine), torch.acos(cosine))
        return torch.rad2deg(radians).sort().values


class Solver:
    """DRR of one snapshot. `refine` solves the tail further; `ritz` returns the current triplets."""

    def __init__(self, base: BaseFactors, w: Tensor, e: Tensor, k: int, gemm_noise: float) -> None:
        """w, e [m, n] f32, A's orientation (may be transposed views); k: the largest cut, k <= base.width.

        base.s[0] lies between 2^-12 and 2^12, and ||e||_F within 2^40 of it (`certified`).
        """
        self.base, self.w, self.e, self.gemm_noise, self.k = base, w, e, gemm_noise, k
        self.q, self.columns = base.width, min(k + EXTRA, base.width)
        self.u, self.v, self.guard = base.frames
        near, far = e @ self.v, e.T @ self.u
        moved = base.u.T @ near.double()
        self.core = torch.diag(base.s[: self.q]) + moved
        self.p, self.r = near - self.u @ moved.float(), far - self.v @ moved.T.float()
        # The rounding of a product is relative to its result. E is rounded once per entry if it is not exact.
        rounded = 4 * 2.0**-24 * frobenius(e) / min(e.shape) ** 0.5
        self.noise = gemm_noise * (frobenius(near) + frobenius(far)) + rounded
        left, values, right = torch.linalg.svd(self.core)
        dressed = slice(0, self.columns)
        self.right_side = self.r @ left[:, dressed].float()
        # A rank-deficient core has values near 0, whose tails would be infinite. Any finite tail is valid.
        self.values = values[dressed].clamp(min=LEAST * float(values[0])).float()
        shift = self.values**2
        inside = base.s[self.q : self.q + self.guard.shape[1]].float() ** 2
        # A value of W' may exceed s_i if the update is large; clamping keeps the preconditioner positive.
        self.gain = 1.0 / torch.maximum(shift - inside[:, None], 1e-3 * shift) - 1.0 / shift
        self.shift = shift
        target = (self.p @ right.T[:, dressed].float()) * self.values + self._apply_deflated(self.right_side)
        self.target_norm = vector_norm(target, dim=0).clamp(min=torch.finfo(torch.float32).tiny)
        self.x = torch.zeros_like(target)
        self.residual = target
        self.direction = self.z = self._precondition(target)
        self.energy = (self.residual * self.z).sum(0)
        self.iterations = 0
        self.basis: tuple[Tensor, Tensor] | None = None

    def refine(self, tolerance: float = TAIL_TOLERANCE, most: int = MOST) -> None:
        """Conjugate gradients on all columns until each relative residual is below tolerance, or `most` steps."""
        while self.iterations < most and self._relative_residual() > tolerance:
            image = self.direction * self.shift - self._apply_deflated(self._apply_deflated_transpose(self.direction))
            curvature = (self.direction * image).sum(0)
            # A column that is solved, or whose operator is not positive (a large update), is not changed.
            step = torch.where(curvature > 0, self.energy / curvature.clamp(min=1e-38), 0.0)
            self.x = self.x + step * self.direction
            self.residual = self.residual - step * image
            self.z = self._precondition(self.residual)
            energy = (self.residual * self.z).sum(0)
            ratio = torch.where(self.energy > 0, energy / self.energy.clamp(min=1e-38), 0.0)
            self.direction, self.energy = self.z + ratio * self.direction, energy
            self.iterations += 1

    def ritz(self) -> Ritz:
        """Rayleigh-Ritz on [U, X] and [V, Y]. X includes one more preconditioned step, which costs nothing."""
        solved = self._outside_u(self.x + self.z)
        image = self._apply_deflated_transpose(solved)
        y = (self.right_side + image) / self.values
        x, y = _basis_outside(solved, self._outside_u), _basis_outside(y, self._outside_v)
        forth, back = self.w @ y, self._image_of(x, solved, image)
        self.basis = x, y
        q, p = self.q, self.q + self.columns
        corner = (x.T @ forth).double()
        compressed = torch.zeros(p, p, dtype=torch.float64, device=x.device)
        compressed[:q, :q] = self.core
        compressed[:q, q:] = (self.r.T @ y).double()
        compressed[q:, :q] = (x.T @ self.p).double()
        compressed[q:, q:] = corner
        near, values, far = torch.linalg.svd(compressed)
        far = far.T
        # The parts outside both spaces: A [V, Y] without U and X, and A'[U, X] without V and Y.
        left = self._outside_u(torch.cat([self.p, forth], 1))
        left = left - x @ (x.T @ left)
        right = self._outside_v(torch.cat([self.r, back], 1))
        right = right - y @ (y.T @ right)
        defect = max(_defect(self.base.u, x), _defect(self.base.v, y))
        tilt = max(float(torch.linalg.matrix_norm(side[q:, : self.columns], 2)) for side in (near, far))
        size, moved = max(frobenius(forth), frobenius(back)), frobenius(self.p) + frobenius(self.r)
        allowance = self.noise + (self.gemm_noise + defect) * size * min(1.0, tilt) + defect * moved
        inside, outside = self._residuals(values, near, far)
        return Ritz(
            values=values,
            near=near,
            far=far,
            near_residual=_gram(left @ far.float()),
            far_residual=_gram(right @ near.float()),
            residual_noise=self.gemm_noise * (_lengths(left, far) + _lengths(right, near)),
            width=q,
            noise=max(allowance, inside),
            iterations=self.iterations,
            defect=defect,
            outside=outside,
        )

    def _residuals(self, values: Tensor, near: Tensor, far: Tensor) -> tuple[float, Tensor]:
        """Norm of the residuals of the k leading triplets inside the computed spaces, and `Ritz.outside`."""
        assert self.basis is not None
        k, s = self.k, values[: self.k]
        near_space, far_space = (
            torch.cat([frame, part.double()], 1)
            for frame, part in zip((self.base.u, self.base.v), self.basis, strict=True)
        )
        u, v = near_space @ near[:, :k], far_space @ far[:, :k]
        inside, outside = torch.zeros_like(s), torch.zeros_like(s)
        pairs = ((near_product(self.w, v) - u * s, near_space), (far_product(self.w, u) - v * s, far_space))
        for residual, space in pairs:
            coefficients = space.T @ residual
            inside += vector_norm(coefficients, dim=0)
            outside = torch.hypot(outside, vector_norm(residual - space @ coefficients, dim=0))
        rounded = rounding_bound(self.w.shape[0], self.w.shape[1], torch.float64) * float(values[0])
        return float(vector_norm(inside)) + rounded, outside

    def outside(self, ritz: Ritz, j: int) -> Callable[[Tensor], Tensor]:
        """z -> B B' z [m, b], B = W_t without the j leading Ritz vectors of `ritz` (the last result of `ritz()`)."""
        assert self.basis is not None
        q = ritz.width
        u = self.u @ ritz.near[:q, :j].float() + self.basis[0] @ ritz.near[q:, :j].float()
        v = self.v @ ritz.far[:q, :j].float() + self.basis[1] @ ritz.far[q:, :j].float()

        def multiply(z: Tensor) -> Tensor:
            z = self.w.T @ (z - u @ (u.T @ z))
            z = self.w @ (z - v @ (v.T @ z))
            return z - u @ (u.T @ z)

        return multiply

    def _image_of(self, x: Tensor, solved: Tensor, image: Tensor) -> Tensor:
        """W'^T x for a basis x of the solved tails; from their images if that is well conditioned."""
        length = vector_norm(solved, dim=0).clamp(min=torch.finfo(x.dtype).tiny)
        mixing = (x.T @ (solved / length)).double()
        spread = torch.linalg.svdvals(mixing)
        if float(spread[-1]) <= 1e-2 * float(spread[0]):
            return self._apply_deflated_transpose(x)
        return torch.linalg.solve(mixing, (image / length).double(), left=False).to(x.dtype)

    def _relative_residual(self) -> float:
        return float((vector_norm(self.residual, dim=0) / self.target_norm).max())

    def _apply_deflated(self, y: Tensor) -> Tensor:
        """W' y for y outside V. Projected, since W_t amplifies rounding errors along U and V in every step."""
        return self._outside_u(self.w @ y)

    def _apply_deflated_transpose(self, x: Tensor) -> Tensor:
        """W'^T x for x outside U."""
        return self._outside_v(self.w.T @ x)

    def _outside_u(self, x: Tensor) -> Tensor:
        return x - self.u @ (self.u.T @ x)

    def _outside_v(self, y: Tensor) -> Tensor:
        return y - self.v @ (self.v.T @ y)

    def _precondition(self, x: Tensor) -> Tensor:
        return x / self.shift + self.guard @ (self.gain * (self.guard.T @ x))


def _gram(x: Tensor) -> Tensor:
    """x'x, with x scaled near 1 first, since f32 squares could underflow."""
    size = float(vector_norm(x, torch.inf)) or 1.0
    x = x / size
    return (x.T @ x).double() * size**2


def _lengths(parts: Tensor, coefficients: Tensor) -> Tensor:
    """sum_j |c_ji| ||part_j||, a bound on the terms that add up to column i of parts @ coefficients."""
    return vector_norm(parts, dim=0, dtype=torch.float64) @ coefficients.abs()


def _basis(x: Tensor) -> Tensor:
    """An orthonormal basis of span x. Columns are normalised first, since tails differ by orders of magnitude."""
    return torch.linalg.qr(x / vector_norm(x, dim=0).clamp(min=torch.finfo(x.dtype).tiny)).Q


def _basis_outside(x: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
    """An orthonormal basis [m, c] in the range of `project` that contains the projection of span x [m, c].

    Errors: OutOfRange if none is reached after ATTEMPTS.
    """
    generator, basis = torch.Generator().manual_seed(len(x)), _basis(x)
    for _ in range(ATTEMPTS):
        x = project(basis)
        energy, mixing = torch.linalg.eigh((x.T @ x).double())
        gone = energy < 0.25  # an arbitrary direction of QR that the projection nearly removes
        if not bool(gone.any()):
            return _basis(x)
        x = x @ mixing.to(x.dtype)
        x[:, gone] = project(torch.randn(len(x), int(gone.sum()), generator=generator).to(x))
        basis = _basis(x)
    raise OutOfRange("no basis outside the leading subspaces of W0 was met")


def _defect(frame: Tensor, x: Tensor) -> float:
    """Bound on the spectral norm of [frame, x]'[frame, x] - 1, frame [m, q] orthonormal on float64."""
    x = x.double()
    across = torch.linalg.matrix_norm(frame.T @ x, 2)
    return float(across + torch.linalg.matrix_norm(x.T @ x - torch.eye(x.shape[1]).to(x), 2))
