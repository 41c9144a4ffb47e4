"""D2, rotation: principal angles theta_1 <= ... <= theta_k between the top-k singular subspaces of W0 and W_t.

    output side: U_k of the [out, in] weight      input side: V_k

Reported with the conditioning gap = sigma_k - sigma_{k+1} of W0 (sigma_{r+1} = 0, r = min(m, n)): the largest angle
often comes from one nearly degenerate pair that swapped across the cut. Not measured: motion inside the subspace,
change of singular values (see `drift`), and vectors past the cut. Signs and order of vectors do not matter.

Three routes give the same numbers. Each row has the route's name, and `fallback` says why an earlier route failed:

    svd-f64, gram-f64   r <= 512: dense float64 factors of both. The computed factors are exact for A + E
                        with ||E||_2 <= c eps sigma_1, so by Davis-Kahan and Wedin, with the gap of A + E at least half
                        that of A, each subspace is off by asin min(1, 2 c eps sigma_1 / gap); on the Gram route the
                        gap of A A' is at least sigma_k gap, so 2 c eps sigma_1^2 / (sigma_k gap). Angles obey the
                        triangle inequality: the errors of W0 and W_t add
    drr-f32             difference-form Rayleigh-Ritz (`drr`), bounded by its certificate (`certificate`); with
                        +spectrum where the certificate leans on the float64 spectrum of W_t
    factors-f64         float64 Gram factors of W_t with their residuals, where no certificate is defined

A degenerate cut (gap 0) has an error bound of 90 degrees.
Source: arXiv 2606.07082, section 3.1 and appendix C.3.
"""

import math
from dataclasses import dataclass, replace

from torch import Tensor

from opd_ops.geometry.exact import SIDES, Factors, principal_angles

VALUES = ("mean_deg", "rms_deg", "max_deg", "angles_deg", "gap", "error_deg", "angle_error_deg", "delta", "iterations")


@dataclass(frozen=True)
class Cut:
    """The rotation at one cut: angles in degrees [k] ascending by side, their error bounds and their method.

    error_deg: of the mean, root mean square and largest angle. angle_error_deg: of each single angle.
    """

    k: int
    angles: dict[str, Tensor]
    error_deg: dict[str, float]
    angle_error_deg: float
    gap: float
    method: str
    delta: float | None = None
    iterations: int | None = None
    fallback: str | None = None

    def scaled(self, unit: float) -> "Cut":
        """The cut of weights that are `unit` times as large."""
        return replace(self, gap=self.gap * unit, delta=None if self.delta is None else self.delta * unit)

    def row(self, side: str, view: str) -> dict:
        """The row of one side. If the subspace is the whole space of the side, angles and error are 0."""
        angles = self.angles[side]
        return {
            "view": view,
            "side": side,
            "k": self.k,
            "mean_deg": float(angles.mean()),
            "rms_deg": float(angles.square().mean().sqrt()),
            "max_deg": float(angles[-1]),
            "angles_deg": angles.tolist(),
            "gap": self.gap,
            "error_deg": self.error_deg[side],
            "angle_error_deg": self.angle_error_deg if self.error_deg[side] else 0.0,
            "delta": self.delta,
            "iterations": self.iterations,
            "fallback": self.fallback,
            "reason": None,
        }


def singular_gap(factors: Factors, k: int) -> float:
    """sigma_k - sigma_{k+1} in weight units."""
    return factors.sigma(k) - factors.sigma(k + 1)


def subspace_error(factors: Factors, k: int) -> float:
    """Bound in degrees on the largest angle between the computed and the true top-k subspace, either side."""
    shift, room = 2.0 * factors.noise(k) * factors.sigma(k), singular_gap(factors, k)
    return math.degrees(math.asin(shift / room)) if shift < room else 90.0


def explain_undefined(base: Factors, tuned: Factors, k: int) -> str | None:
    """The reason why there is no top-k subspace, or None if there is one."""
    if k > len(base.s):
        return f"k={k} exceeds min(m, n)={len(base.s)}"
    for name, factors in (("W0", base), ("W_t", tuned)):
        if not factors.resolves(k):
            return f"sigma_{k} of {name} is numerically zero"
    return None


def exact_cut(base: Factors, tuned: Factors, k: int) -> Cut:
    """The cut from dense factors of both weights."""
    error = min(90.0, subspace_error(base, k) + subspace_error(tuned, k))
    whole = {side: k == len(base.basis(side)) for side in SIDES}
    return Cut(
        k=k,
        angles={side: principal_angles(base.basis(side)[:, :k], tuned.basis(side)[:, :k]) for side in SIDES},
        error_deg={side: 0.0 if whole[side] else error for side in SIDES},
        angle_error_deg=error,
        gap=singular_gap(base, k),
        method=base.method,
    )


def missing(k: int, view: str, reason: str) -> list[dict]:
    """Null rows of one cut."""
    values = dict.fromkeys((*VALUES, "fallback"))
    return [{"view": view, "side": side, "k": k, **values, "reason": reason} for side in SIDES]
