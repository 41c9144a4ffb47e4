"""D5, D6, D7, D9: size and concentration of the update dW = W_t - W0, from its singular values sigma.

    stable rank     sum sigma_i^2 / sigma_1^2
    effective rank  exp(-sum p_i log p_i), p_i = sigma_i / sum sigma (Roy-Vetterli) and, as `_energy`, of sigma_i^2
    Hill index      [ 1/(k-1) sum_{i<k} log(sigma_i / sigma_k) ]^-1; small is a heavy tail; depends strongly on k
    rounding norm   sqrt(sum_ij ulp(W_t,ij)^2 / 12), the norm of uniform rounding noise of this view's storage

Not measured: directions (see `locking`), and whether the update is signal. A frobenius near rounding_norm is storage
noise, whose stable rank is large for any training; in the bf16 view a direction that never turns shows a falling one.
Source: arXiv 2606.07082, sections 4.1 and 4.2 and appendix E; Roy and Vetterli, EUSIPCO 2007; Hill, Ann. Stat. 1975.
"""

import torch
from torch import Tensor
from torch.linalg import vector_norm

from opd_ops.geometry.exact import Factors


def stable_rank(s: Tensor) -> float:
    """||dW||_F^2 / ||dW||_2^2 in [1, r] from descending singular values [r], not all zero."""
    return float((s / s[0]).square().sum())


def effective_rank(weights: Tensor) -> float:
    """exp entropy of weights / sum(weights), in [1, r]; weights [r] are non-negative and not all zero."""
    return float(torch.special.entr(weights / weights.sum()).sum().exp())


def rounding_norm(w: Tensor, storage: torch.dtype) -> float:
    """sqrt(sum ulp^2 / 12) in weight units for values w (float64) rounded to `storage`.

    ulp(x) = eps 2^floor(log2 |x|), and the spacing of subnormals below the smallest normal. Exact zeros count nothing:
    they are weights that were never trained, or pruned, more often than rounded ones.
    """
    grid = torch.finfo(storage)
    power = torch.frexp(w.abs().clamp(min=grid.smallest_normal)).exponent - 1
    ulp = torch.ldexp(torch.full_like(w, grid.eps), power).where(w != 0.0, 0.0)
    return float(vector_norm(ulp) / 12.0**0.5)


def rows(delta: Tensor, factors: Factors, base_norm: float, rounding: float, view: str) -> list[dict]:
    """One row for dW [m, n] with its factors, base_norm = ||W0||_F and rounding = rounding_norm of W_t."""
    s, moved = factors.s, factors.sigma(1) > 0.0
    frobenius = float(vector_norm(delta))
    missing = (("zero update", not moved), ("W0 is zero", base_norm == 0.0))
    return [
        {
            "view": view,
            "frobenius": frobenius,
            "relative_norm": frobenius / base_norm if base_norm else None,
            "spectral_norm": factors.sigma(1),
            "stable_rank": stable_rank(s) if moved else None,
            "effective_rank": effective_rank(s) if moved else None,
            "effective_rank_energy": effective_rank(s.square()) if moved else None,
            "energy_top16": float(s[:16].square().sum() / s.square().sum()) if moved else None,
            "rounding_norm": rounding,
            "reason": "; ".join(text for text, true in missing if true) or None,
        }
    ]


def hill_cuts(settings: tuple[int, ...], r: int) -> tuple[int, ...]:
    """The k at which Hill is taken: the settings and 10 % of r = min(m, n), rounded, at least 2; ascending."""
    return tuple(sorted({*settings, max(2, round(r / 10))}))


def hill(factors: Factors, k: int) -> tuple[float | None, str | None]:
    """(index, None), or (None, reason) where the top k >= 2 values do not exist, vanish or are equal."""
    if k > len(factors.s):
        return None, f"k={k} exceeds min(m, n)={len(factors.s)}"
    if not factors.resolves(k):
        return None, f"sigma_{k} of the update is numerically zero"
    spread = float((factors.s[: k - 1] / factors.sigma(k)).log().mean())
    if spread <= factors.noise(k):
        return None, f"the top {k} singular values are equal"
    return 1.0 / spread, None


def hill_rows(factors: Factors, ks: tuple[int, ...], view: str) -> list[dict]:
    """One row per k of `hill_cuts`."""
    found = [(k, *hill(factors, k)) for k in hill_cuts(ks, len(factors.s))]
    return [{"view": view, "k": k, "hill": index, "reason": reason} for k, index, reason in found]
