"""D3, spectral drift: nss = ||sigma(W_t) - sigma(W0)||_2 / ||sigma(W0)||_2 over the whole sorted spectrum.

    mirsky   ||W_t - W0||_F / ||W0||_F, an upper bound of nss (Mirsky's theorem)
    error    ||noise of both spectra||_2 / ||sigma(W0)||_2, a bound on the rounding error of nss
    shifts   sigma_i(W_t) - sigma_i(W0) for i <= k, and nss_k = ||shifts||_2 / ||sigma(W0)_{i <= k}||_2; computed from
             differences, so that they keep their digits even if the spectra agree to six digits

Both spectra are float64. First-order perturbation, sum_i (u_i'E v_i)^2, would be ten times cheaper, but its only
bound, ||E||_F / ||W0||_F (Mirsky, on the off-diagonal rest), is some forty times nss itself.
Not measured: rotation (an orthogonal factor on either side leaves nss at 0), and the direction of a shifted value,
since values are compared by rank. nss_k does not approximate nss: the bulk of the spectrum contributes most of it.
Source: arXiv 2606.07082, section 3.1 and appendix C.3.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from opd_ops.geometry.gram import Spectrum
from opd_ops.geometry.scale import frobenius


@dataclass(frozen=True)
class Shift:
    """values: sigma_i(W_t) - sigma_i(W0), float64 [k]. error: bound on the error of each, in weight units."""

    k: int
    values: Tensor
    error: float
    base: Tensor
    method: str

    def scaled(self, unit: float) -> "Shift":
        """The shift of weights that are `unit` times as large."""
        return replace(self, values=self.values * unit, error=self.error * unit, base=self.base * unit)

    def row(self, view: str) -> dict:
        return {
            "view": view,
            "k": self.k,
            "shifts": self.values.tolist(),
            "nss_k": frobenius(self.values) / frobenius(self.base),
            "largest": float(self.values.abs().max()),
            "error": self.error,
            "reason": None,
        }


def nss(before: Tensor, after: Tensor) -> float:
    """Normalised spectral shift of two descending spectra [r] of the same length; `before` is not zero."""
    return frobenius(after - before) / frobenius(before)


def rows(base: Spectrum, tuned: Spectrum, update_norm: float, view: str) -> list[dict]:
    """One row. update_norm: ||W_t - W0||_F in the units of the spectra.

    If both spectra are the same object (nothing moved), the values are exact zeros.
    """
    if float(base.values[0]) == 0.0:
        return missing(view, "W0 is zero")
    size = frobenius(base.values)
    error = 0.0 if tuned is base else frobenius(base.noise + tuned.noise) / size
    values = {"nss": nss(base.values, tuned.values), "mirsky": update_norm / size, "error": error}
    return [{"view": view, **values, "reason": None}]


def missing(view: str, reason: str) -> list[dict]:
    return [{"view": view, "nss": None, "mirsky": None, "error": None, "reason": reason}]


def missing_shift(k: int, view: str, reason: str) -> list[dict]:
    return [{"view": view, "k": k, **dict.fromkeys(("shifts", "nss_k", "largest", "error")), "reason": reason}]
