"""Mix: L = c_OPD L_OPD + c_RLVR L_RLVR on the same rollouts, each with its own normaliser and denominator.

    raw   (c_OPD, c_RLVR) = (alpha, 1 - alpha), as the paper mixes advantages
    rms   (alpha / rms_OPD, (1 - alpha) / rms_RLVR), rms the root mean square of the term's per-token advantage over the
          step's tokens: log s(y) - log T(y) for OPD, A for RLVR

Raw scales differ: a log ratio is 0.1 to 1 on few tokens, a group-normalised advantage about 1 on all, so equal raw
coefficients are not equal signals. A term without any signal has rms 0 and gets coefficient 0.
Not measured: whether the two gradients agree; equal rms of advantages is not equal norm of gradients.
Source: arXiv 2606.07082, appendix G, for `raw`.
"""

from typing import Literal

from torch import Tensor


def coefficients(alpha: float, scale: Literal["raw", "rms"], opd_rms: float, rlvr_rms: float) -> tuple[float, float]:
    """(c_OPD, c_RLVR); the root mean squares are read for `rms` only."""
    if scale == "raw":
        return alpha, 1 - alpha
    return alpha / opd_rms if opd_rms else 0.0, (1 - alpha) / rlvr_rms if rlvr_rms else 0.0


def rms(values: Tensor, mask: Tensor) -> float:
    """Root mean square of values [B, R] over the tokens under the mask, in float64; 0 where there are none."""
    found = values[mask > 0].double()
    return float(found.square().mean().sqrt()) if len(found) else 0.0
