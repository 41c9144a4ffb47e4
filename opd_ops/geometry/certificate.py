"""The error bound of a Rayleigh-Ritz result. It holds for any spectrum of W_t.

Split the Ritz triplets at k (wanted) and at j >= k (close ones, k+1..j). With

    tau     bound on ||W_t||_2 on the complement of the j Ritz vectors of each side
    delta   s_k - tau                 gamma   s_k - s_{k+1}   (infinite if j = k)
    rho     ||residuals of the wanted triplets||_F      c   spectral norm of the residuals of the close ones

the part of the true top-k singular vectors outside the Ritz vectors is at most  o = rho / (delta - c^2 / gamma)  in
Frobenius norm, and their mixing with the close ones at most  o c / gamma. Proof: write the singular equations of W_t in
the three-block basis; the close rows give ||Z_close|| gamma <= c ||Z_out||, and the outer rows give
||Z_out|| delta <= rho + c ||Z_close||. By the same rows, the mixing with the far Ritz vectors (past j) is at most
o c_far / (s_k - s_{j+1}). The rest is orthogonal to all computed vectors, so it adds to an angle's sine in quadrature.
Mixing with close and far Ritz vectors adds linearly, as do f32 rounding (a perturbation nu of E, Wedin) and the base
factors' residual, at both cuts.

tau follows from Weyl at no cost: tau^2 = sigma_{j+1}(W0)^2 + ||S_j (part of U_j outside the j vectors)||^2, plus
||E||_2. If the update is large, there are two sharper bounds: single-vector Lanczos on W_t with the j Ritz vectors
removed, whose failure probability is known; or sigma_{j+1}(W_t) + c if the whole spectrum of W_t is known.
If delta <= c^2 / gamma, the certificate is undefined.

The assumptions are measured, and the deviations are added to the bound. `defect` is the spectral norm by which [U, X]
and [V, Y] deviate from orthonormal. It turns computed vectors by at most defect times their part in X or Y, and adds
sigma_1 times that to the part of U_j outside. The residuals of the wanted triplets are computed from their vectors in
float64 (`drr`, step 4). Their part inside the computed spaces counts as a perturbation nu if it exceeds the allowance
for rounding; their part outside counts as rho if it exceeds the compressed one.

Norms from random starts fail with probability 1e-10 each; rounding is bounded by the probed noise of f32 products. All
other bounds are deterministic.
Source: Nakatsukasa, Math. Comp. 89 (2020), theorem 3.1, for single vectors; Wedin, BIT 12 (1972); Weyl.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import matrix_norm, vector_norm

from opd_ops.geometry.base import BaseFactors
from opd_ops.geometry.drr import Ritz
from opd_ops.geometry.gram import Spectrum

OFF = math.pi / 2


@dataclass(frozen=True)
class Outer:
    """The bound tau for a split at j Ritz triplets. source: "weyl", "lanczos" or "spectrum"."""

    split: int
    tau: float
    source: str


@dataclass(frozen=True)
class Certificate:
    """Bounds at one cut k. Undefined if `outside` is None.

    outside, linear: the two error parts of the computed top-k subspaces, radians. delta, gap in weight units; gap is
    s_k - s_{k+1} of W_t. shift: bound on the error of each of the k leading singular values.
    """

    outside: float | None
    linear: float
    delta: float
    gap: float
    shift: float
    source: str

    @property
    def defined(self) -> bool:
        return self.outside is not None

    def summary_error(self, sines: Tensor) -> float:
        """Bound in degrees on the errors of the largest, mean and root mean square angle, sines [k] ascending."""
        return math.degrees(max(self._largest(sines), self._mean(sines)))

    def angle_error(self) -> float:
        """Bound in degrees on the error of every single angle."""
        return math.degrees(OFF if self.outside is None else min(OFF, _asin(self.outside) + self.linear))

    def _largest(self, sines: Tensor) -> float:
        if self.outside is None:
            return OFF
        s = float(sines[-1])
        rise = _asin(math.hypot(s, self.outside)) - _asin(s)
        fall = _asin(s) - _asin(s * math.sqrt(max(0.0, 1.0 - self.outside**2 - self.linear**2)))
        return min(OFF, max(rise, fall) + self.linear)

    def _mean(self, sines: Tensor) -> float:
        """sum_i (sin true_i - sin_i)^2 <= outside^2 (Mirsky), so the mean error is at most outside / sqrt(k)."""
        if self.outside is None:
            return OFF
        top = math.hypot(float(sines[-1]), self.outside)
        steepness = 1.0 / math.sqrt(max(1e-12, 1.0 - top**2))
        mirsky = steepness * self.outside / len(sines) ** 0.5
        raised = torch.hypot(sines, torch.full_like(sines, self.outside)).clamp(max=1.0)
        single = float((torch.asin(raised) - torch.asin(sines)).mean())
        return min(OFF, min(mirsky, max(single, 0.0)) + self.linear)


def certify(
    ritz: Ritz,
    base: BaseFactors,
    k: int,
    norm: float,
    spectrum: Spectrum | None,
    thorough: bool = True,
    outer: Outer | None = None,
) -> Certificate:
    """The tightest certificate at cut k.

    norm: upper bound on ||E||_2. spectrum: of W_t, if known. thorough: try every split; otherwise only the widest,
    which suffices for a small update. outer: an additional bound tau.
    """
    outers = _outers(ritz, base, k, norm, spectrum) if thorough else [_weyl(ritz, base, ritz.width, norm)]
    outers += [outer] if outer is not None and outer.split >= k else []
    certificates = [_bound(ritz, base, k, candidate, thorough) for candidate in outers]
    defined = [candidate for candidate in certificates if candidate.defined]
    return (
        min(defined, key=Certificate.angle_error)
        if defined
        else max(certificates, key=lambda candidate: candidate.delta)
    )


def _outers(ritz: Ritz, base: BaseFactors, k: int, norm: float, spectrum: Spectrum | None) -> list[Outer]:
    solved = len(ritz.values) - ritz.width
    splits = sorted({k, min(solved, ritz.width), (solved + ritz.width) // 2, ritz.width})
    bounds = [_weyl(ritz, base, j, norm) for j in splits if k <= j <= ritz.width]
    if spectrum is None:
        return bounds
    for j in range(k, max(k, solved) + 1):
        slack = _spectral(ritz, 0, j) + ritz.noise
        # The j Ritz values must be the j leading ones, so that what is left starts at sigma_{j+1}.
        if float(ritz.values[j - 1]) > spectrum.upper_bound_after(j) + 2 * slack:
            bounds.append(Outer(j, spectrum.upper_bound_after(j) + slack, "spectrum"))
    return bounds


def _weyl(ritz: Ritz, base: BaseFactors, j: int, norm: float) -> Outer:
    return Outer(
        j, math.hypot(base.spectrum.upper_bound_after(j), _spill(ritz, base, j)) + norm + base.residual, "weyl"
    )


def _bound(ritz: Ritz, base: BaseFactors, k: int, outer: Outer, sharp: bool) -> Certificate:
    last = float(ritz.values[k - 1])
    gap = last - float(ritz.values[k])
    delta = last - outer.tau - 2 * ritz.noise
    close, gamma = 0.0, math.inf
    if outer.split > k:
        close, gamma = _spectral(ritz, k, outer.split, sharp), gap - 2 * ritz.noise
    room = delta - close**2 / gamma if gamma > 0 else -math.inf
    if room <= 0:
        return Certificate(None, OFF, delta, gap, math.inf, outer.source)
    rho = float((ritz.near_residual.diagonal()[:k] + ritz.far_residual.diagonal()[:k]).sum().sqrt())
    rho = max(rho + float(vector_norm(ritz.residual_noise[:k])), float(vector_norm(ritz.outside[:k])))
    outside = rho / room
    # The gap between the two spectra after the outer part shifts the close values.
    apart = min(delta, gamma * room / delta)
    before = _sigma(base.s, k - 1) - _sigma(base.s, k)
    turned = [_wedin(ritz.noise, apart), _wedin(base.residual, apart), _wedin(base.residual, before)]
    turned.append(_asin(ritz.defect * ritz.tilt(k)))
    far = _spectral(ritz, outer.split, len(ritz.values), sharp)
    beyond = last - float(ritz.values[outer.split])
    spread = close / gamma + (min(1.0, far / beyond) if beyond > 0 else 1.0)
    linear = sum(turned) + _asin(outside * spread)
    shift = min(rho, rho**2 / room) + ritz.noise + base.residual
    defined = outside < 1.0 and linear < OFF
    return Certificate(outside if defined else None, linear, delta, gap, shift, outer.source)


def _spill(ritz: Ritz, base: BaseFactors, j: int) -> float:
    """||S_j U_j' P||_2, P the projection onto the complement of the j leading Ritz vectors; the smaller side."""
    s = base.s[:j, None]
    spill = min(float(matrix_norm(s * side[:j, j:], 2)) for side in (ritz.near, ritz.far))
    return spill + float(base.s[0]) * ritz.defect * ritz.tilt(j)


def _spectral(ritz: Ritz, begin: int, end: int, sharp: bool = True) -> float:
    """Spectral norm of the residuals of triplets begin..end, the larger side. sharp=False: a cheaper upper bound."""
    if end <= begin:
        return 0.0
    grams = [gram[begin:end, begin:end] for gram in (ritz.near_residual, ritz.far_residual)]
    noise = float(vector_norm(ritz.residual_noise[begin:end]))
    if not sharp:
        return max(float(vector_norm(gram)) for gram in grams) ** 0.5 + noise
    return max(float(torch.linalg.eigvalsh(gram)[-1].clamp(min=0)) for gram in grams) ** 0.5 + noise


def _sigma(s: Tensor, index: int) -> float:
    return float(s[index]) if index < len(s) else 0.0


def _wedin(perturbation: float, gap: float) -> float:
    return _asin(perturbation / (gap - perturbation)) if gap > 2 * perturbation else OFF


def _asin(x: float) -> float:
    return math.asin(min(1.0, x))
