"""D3, spectral drift: nss = ||sigma(W_t) - sigma(W0)||_2 / ||sigma(W0)||_2 over the whole sorted spectrum.

Bounded by mirsky = ||W_t - W0||_F / ||W0||_F (Mirsky's theorem). Not measured: rotation (an orthogonal factor on
either side leaves nss at 0), and which direction a shifted value belongs to, since values are compared by rank order.
Accuracy: absolute error of nss at most 2 c eps sigma_1 sqrt(r) / ||sigma|| on the svd route and, on the Gram route,
2 c eps (sigma_1 / ||sigma||) sqrt(sum_i (sigma_1 / sigma_i)^2), see `exact`. Seen on 576 x 1536 and 576 x 576: below
2e-15, which is 2e-10 of an nss of 1e-6.
Source: arXiv 2606.07082, section 3.1 and appendix C.3.
"""

from torch import Tensor
from torch.linalg import vector_norm

from opd_ops.geometry.exact import Factors


def nss(before: Tensor, after: Tensor) -> float:
    """Normalised spectral shift of two descending spectra [r] of the same length; `before` is not zero."""
    return float(vector_norm(after - before) / vector_norm(before))


def rows(base: Factors, tuned: Factors, delta: Tensor, view: str) -> list[dict]:
    """One row; null where W0 is zero. delta [m, n] is W_t - W0 of the view."""
    if base.sigma(1) == 0.0:
        return [{"view": view, "nss": None, "mirsky": None, "reason": "W0 is zero"}]
    mirsky = float(vector_norm(delta) / vector_norm(base.s))
    return [{"view": view, "nss": nss(base.s, tuned.s), "mirsky": mirsky, "reason": None}]
