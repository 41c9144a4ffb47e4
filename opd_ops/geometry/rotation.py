"""D2, rotation: principal angles theta_1 <= ... <= theta_k between the top-k singular subspaces of W0 and W_t.

    output side: U_k of the [out, in] weight      input side: V_k

Reported with the cut's conditioning gap = sigma_k - sigma_{k+1} of W0 (sigma_{r+1} = 0, r = min(m, n)): the largest
angle is often one near-degenerate pair that swapped across the cut. Not measured: motion inside the subspace, change
of singular values, and anything below the cut. Angles are of subspaces, so signs and order of vectors do not enter.

Rounding bound. The computed factors are exact for A + E with ||E||_2 <= c eps sigma_1, so by Davis-Kahan and Wedin,
with the gap of A + E at least half that of A, each subspace is off by asin min(1, 2 c eps sigma_1 / gap); on the Gram
route E perturbs A A', whose gap is at least sigma_k gap, so it is 2 c eps sigma_1^2 / (sigma_k gap). Both are
2 noise(k) sigma_k / gap. Angles obey the triangle inequality: the errors of W0 and of W_t, each at its own gap, add.
A degenerate cut (gap 0) has a bound of 90 degrees: any angle is consistent with it.

Source: arXiv 2606.07082, section 3.1 and appendix C.3.
"""

import math

from opd_ops.geometry.exact import SIDES, Factors, principal_angles

VALUES = ("mean_deg", "rms_deg", "max_deg", "angles_deg", "gap", "error_deg")


def gap(factors: Factors, k: int) -> float:
    """sigma_k - sigma_{k+1} in weight units."""
    return factors.sigma(k) - factors.sigma(k + 1)


def subspace_error(factors: Factors, k: int) -> float:
    """Bound in degrees on the largest angle between the computed and the true top-k subspace, either side."""
    shift, room = 2.0 * factors.noise(k) * factors.sigma(k), gap(factors, k)
    return math.degrees(math.asin(shift / room)) if shift < room else 90.0


def undefined(base: Factors, tuned: Factors, k: int) -> str | None:
    """Why there is no top-k subspace, or None where there is."""
    if k > len(base.s):
        return f"k={k} exceeds min(m, n)={len(base.s)}"
    for name, factors in (("W0", base), ("W_t", tuned)):
        if not factors.resolves(k):
            return f"sigma_{k} of {name} is numerically zero"
    return None


def rows(base: Factors, tuned: Factors, ks: tuple[int, ...], view: str) -> list[dict]:
    """One row per k and side. A side whose whole space is the subspace (k = its dimension) has angles and error 0."""
    return [{"view": view, "side": side, "k": k, **_values(base, tuned, k, side)} for k in ks for side in SIDES]


def _values(base: Factors, tuned: Factors, k: int, side: str) -> dict:
    reason = undefined(base, tuned, k)
    if reason is not None:
        return {**dict.fromkeys(VALUES), "reason": reason}
    before, after = base.basis(side), tuned.basis(side)
    angles = principal_angles(before[:, :k], after[:, :k])
    error = 0.0 if k == len(before) else min(90.0, subspace_error(base, k) + subspace_error(tuned, k))
    return {
        "mean_deg": float(angles.mean()),
        "rms_deg": float(angles.square().mean().sqrt()),
        "max_deg": float(angles[-1]),
        "angles_deg": angles.tolist(),
        "gap": gap(base, k),
        "error_deg": error,
        "reason": None,
    }
