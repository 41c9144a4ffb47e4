"""Rotation and leading shifts of a large matrix: Rayleigh-Ritz, its certificate, and fallbacks for poor bounds.

Steps in order. Each runs only if the bound so far is undefined or above a quarter of the angle:

    0. conjugate gradient steps, if the tail equation of W0 is not close enough to that of W_t
    1. certificate with ||E||_F for ||E||_2, free        4. Lanczos bound on the complement, if undefined
    2. bound on ||E||_2 from two products                5. float64 spectrum of W_t (shared with `drift`)
    3. more conjugate gradient steps                     6. float64 factors of W_t, if a cut is still undefined although
                                                            its gap is not numerically zero

Source: `drr` and `certificate`.
"""

import math
from functools import cached_property

import torch
from torch import Tensor

from opd_ops.geometry import krylov, scale
from opd_ops.geometry.base import BaseFactors, factorise_base
from opd_ops.geometry.certificate import Certificate, Outer, certify
from opd_ops.geometry.drift import Shift
from opd_ops.geometry.drr import TAIL_TOLERANCE, Ritz, Solver
from opd_ops.geometry.exact import SIDES, principal_angles
from opd_ops.geometry.gemm import Probe
from opd_ops.geometry.gram import Spectrum, spectrum
from opd_ops.geometry.rotation import Cut
from opd_ops.geometry.update import Update

POOR = 0.25  # of the largest angle
LOOSE = 0.1  # of the largest angle, as a Frobenius norm over k; the outer part adds to an angle in quadrature
TIGHT = 1e-2  # relative residual of the tail equation after step 3
LIMIT = 2.0**12  # if sigma_1(W0) is outside [1 / LIMIT, LIMIT], weights are divided by a power of two
APART = 2.0**-40  # below this ratio of ||E||_F and sigma_1(W0), f32 squares of the larger lose the smaller
LONGEST = 80  # Lanczos steps from which on the whole spectrum is cheaper


class Tuned:
    """W_t [out, in] f32, compared with base factors of W0. Results are computed at first use and cached."""

    def __init__(self, weight: Tensor, base: BaseFactors, update: Update, probe: Probe) -> None:
        """Divides all inputs by `unit`, a power of two: 1 except at extreme scales. Results are in weight units."""
        power = scale.exponent(float(base.s[0]), LIMIT)
        self.unit = scale.unit(power)
        self.weight, self.base = scale.multiply(weight, -power), base.scaled(scale.unit(-power))
        self.update, self.probe = update, probe
        self.e = scale.multiply(update.e, update.exponent - power)
        self.near = self.weight.T if base.turned else self.weight
        self.path = "" if probe.path == "highest" else f".{probe.path}"

    @cached_property
    def spectrum(self) -> Spectrum:
        """All singular values of W_t / unit, float64."""
        return self.base.spectrum if self.update.zero else spectrum(self.near, torch.float64)

    @property
    def frobenius(self) -> float:
        """||E||_F in units of `unit`."""
        return self.update.frobenius / self.unit

    @property
    def norm_bound(self) -> float:
        """`Update.norm_bound` in units of `unit`."""
        return self.update.norm_bound / self.unit

    @cached_property
    def factors(self) -> BaseFactors:
        """Float64 factors of W_t, as wide as W0's."""
        return factorise_base(self.weight, self.base.width)

    def undefined(self, k: int) -> str | None:
        """The reason why W0 has no top-k subspace, or None if it has one."""
        s, noise = self.base.spectrum.values, self.base.spectrum.noise
        if k > len(s):
            return f"k={k} exceeds min(m, n)={len(s)}"
        return None if float(s[k - 1]) > float(noise[k - 1]) else f"sigma_{k} of W0 is numerically zero"

    def solve(self, ks: tuple[int, ...]) -> tuple[dict[int, Cut], dict[int, Shift]]:
        """Cuts and shifts for every k at which W_t has a top-k subspace. W0 must have one for all ks."""
        if self.update.zero:
            cuts = {k: self._unmoved(k) for k in ks}
            shifts = {k: self._shift(k, torch.zeros(k), 0.0, "identical") for k in ks}
        else:
            cuts, shifts = self._solve_update(ks)
        if self.unit == 1.0:
            return cuts, shifts
        return (
            {k: cut.scaled(self.unit) for k, cut in cuts.items()},
            {k: shift.scaled(self.unit) for k, shift in shifts.items()},
        )

    def _solve_update(self, ks: tuple[int, ...]) -> tuple[dict[int, Cut], dict[int, Shift]]:
        """`solve` for a nonzero update, in units of `unit`. Errors: OutOfRange."""
        if not APART < self.frobenius / float(self.base.s[0]) < 1 / APART:
            raise scale.OutOfRange("W0 and its update are too far apart for f32")
        e = self.e.T if self.base.turned else self.e
        solver = Solver(self.base, self.near, e, max(ks), self.probe.noise)
        large = self.frobenius > LOOSE * float(self.base.s[max(ks) - 1])
        if large:
            solver.refine(TIGHT if self._hopeless(max(ks)) else TAIL_TOLERANCE)
        ritz, certificates, why, outer = solver.ritz(), {}, None, None
        if not large and any(self._loose(ritz, k) for k in ks):
            solver.refine()
            ritz = solver.ritz()

        def again(norm: float, known: Spectrum | None, thorough: bool = True) -> list[int]:
            for k in ks:
                certificates[k] = certify(ritz, self.base, k, norm, known, thorough, outer)
            return [k for k in ks if self._poor(ritz, certificates[k], k)]

        known = self.__dict__.get("spectrum")
        poor = again(self.frobenius, None, thorough=False)
        if poor:
            poor = again(self.norm_bound, known)
        if poor:
            if not large or any(certificates[k].defined for k in poor):
                solver.refine(TIGHT)
                ritz = solver.ritz()
            undefined = [k for k in poor if not certificates[k].defined]
            if undefined and known is None:
                outer = self._outer(solver, ritz, max(undefined))
            poor = again(self.norm_bound, known)
        if poor and known is None:
            worst = min(poor, key=lambda k: certificates[k].delta)
            why = (
                f"bound at k={worst} was {_describe_reason(certificates[worst])}: leaned on the float64 spectrum of W_t"
            )
            again(self.norm_bound, self.spectrum)
        cuts, shifts = {}, {}
        for k in ks:
            source = certificates[k].source
            method = f"drr-f32{self.path}{'' if source == 'weyl' else f'+{source}'}"
            if certificates[k].defined:
                reason = {"weyl": None, "lanczos": "||E||_2 is too large for Weyl's bound", "spectrum": why}[source]
                cuts[k] = self._cut(k, ritz, certificates[k], method, reason)
                shifts[k] = self._shift(k, ritz.values[:k] - self.base.s[:k], certificates[k].shift, method)
                continue
            if float(self.spectrum.values[k - 1]) <= float(self.spectrum.noise[k - 1]):
                continue  # W_t has no top-k subspace
            undefined = f"certificate undefined ({_describe_reason(certificates[k])}) at Q={self.base.width}"
            if self._separable(k):
                cuts[k] = self._dense(k, f"{undefined}: float64 factors of W_t")
            else:
                cuts[k] = self._cut(k, ritz, certificates[k], method, f"{undefined}: the cut is degenerate")
            noise = float(self.spectrum.noise[:k].max()) + self.base.residual
            shifts[k] = self._shift(k, self.spectrum.values[:k] - self.base.s[:k], noise, self.spectrum.method)
        return cuts, shifts

    def _outer(self, solver: Solver, ritz: Ritz, k: int) -> Outer | None:
        """A Lanczos bound on W_t without its Q leading Ritz vectors; None if that takes more than LONGEST steps."""
        split, wanted = ritz.width, float(ritz.values[k - 1])
        here = float(self.base.s[split])
        # Aim the bound halfway between the expected norm on the complement and the last wanted value.
        miss = 1.0 - (2 * here / (here + wanted)) ** 2
        if miss <= 0 or (steps := krylov.steps_for(len(self.near), miss)) > LONGEST:
            return None
        pairs = krylov.leading_eigenpairs(
            solver.outside(ritz, split),
            len(self.near),
            1,
            device=self.near.device,
            block=1,
            enough=lambda leading: True,
            first=steps,
            most=steps,
            seed=self.update.seed,
        )
        missed = krylov.miss_bound(len(self.near), 1, pairs.dimension)
        value = (1.0 + 1e-5) * float(pairs.values[0]) ** 0.5
        slack = 2 * ritz.defect * float(ritz.values[0])  # the removed vectors are not exactly orthonormal
        return Outer(split, value / (1.0 - missed) ** 0.5 + slack, "lanczos")

    def _hopeless(self, k: int) -> bool:
        """Whether Weyl's bound leaves no margin at cut k."""
        return float(self.base.s[k - 1]) < float(self.base.s[self.base.width]) + self.norm_bound

    def _loose(self, ritz: Ritz, k: int) -> bool:
        """Whether the residuals show an outer part above LOOSE of the largest angle, since W0's equation was solved."""
        apart = float(ritz.values[k - 1]) - float(self.base.s[ritz.width])
        rho = float((ritz.near_residual.diagonal()[:k] + ritz.far_residual.diagonal()[:k]).sum().sqrt())
        return rho > LOOSE * apart * max(float(ritz.sines(k, far)[-1]) for far in (False, True))

    def _poor(self, ritz: Ritz, certificate: Certificate, k: int) -> bool:
        if not certificate.defined:
            return True
        return any(
            certificate.summary_error(ritz.sines(k, far)) > POOR * float(ritz.angles(k, far)[-1])
            for far in (False, True)
        )

    def _sides(self) -> dict[str, bool]:
        """For each side of the weight, whether it is A's far side."""
        return {"output": self.base.turned, "input": not self.base.turned}

    def _cut(self, k: int, ritz: Ritz, certificate: Certificate, method: str, fallback: str | None) -> Cut:
        sides = self._sides()
        return Cut(
            k=k,
            angles={side: ritz.angles(k, far) for side, far in sides.items()},
            error_deg={side: certificate.summary_error(ritz.sines(k, far)) for side, far in sides.items()},
            angle_error_deg=certificate.angle_error(),
            gap=self._gap(k),
            method=method,
            delta=certificate.delta,
            iterations=ritz.iterations,
            fallback=fallback,
        )

    def _dense(self, k: int, fallback: str) -> Cut:
        """The cut from float64 factors of W0 and W_t, with Wedin's bound from their residuals."""
        tuned = self.factors
        error = min(
            90.0, sum(_wedin(certificate.residual, _gap(certificate.s, k)) for certificate in (self.base, tuned))
        )
        bases = {False: (self.base.u, tuned.u), True: (self.base.v, tuned.v)}
        angles = {
            side: principal_angles(bases[far][0][:, :k], bases[far][1][:, :k]) for side, far in self._sides().items()
        }
        return Cut(k, angles, {side: error for side in SIDES}, error, self._gap(k), "factors-f64", fallback=fallback)

    def _separable(self, k: int) -> bool:
        """Whether float64 factors separate sigma_k from sigma_{k+1} for both weights."""
        return all(_gap(s, k) > 1e-11 * float(s[0]) for s in (self.base.s, self.spectrum.values))

    def _unmoved(self, k: int) -> Cut:
        zero = torch.zeros(k, dtype=torch.float64)
        none = {side: 0.0 for side in SIDES}
        return Cut(k, {side: zero for side in SIDES}, none, 0.0, self._gap(k), "identical")

    def _shift(self, k: int, values: Tensor, error: float, method: str) -> Shift:
        return Shift(k, values.double(), error, self.base.s[:k], method)

    def _gap(self, k: int) -> float:
        return _gap(self.base.s, k)


def _gap(s: Tensor, k: int) -> float:
    return float(s[k - 1]) - (float(s[k]) if k < len(s) else 0.0)


def _wedin(residual: float, room: float) -> float:
    return math.degrees(math.asin(residual / (room - residual))) if room > 2 * residual else 90.0


def _describe_reason(certificate: Certificate) -> str:
    return f"delta {certificate.delta:.2g}, gap {certificate.gap:.2g}"
