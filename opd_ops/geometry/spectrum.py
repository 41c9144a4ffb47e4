"""D5, D6, D7, D9: size and concentration of the update dW = W_t - W0, from its singular values sigma.

    stable rank     sum sigma_i^2 / sigma_1^2
    effective rank  exp(-sum p_i log p_i), p_i = sigma_i / sum sigma (Roy-Vetterli) and, as `_energy`, of sigma_i^2
    Hill index      [ 1/(k-1) sum_{i<k} log(sigma_i / sigma_k) ]^-1; small is a heavy tail; depends strongly on k
    floors          rounding_norm, the norm of uniform rounding noise of this view's storage, and iid_stable_rank, the
                    stable rank of independent noise of this shape: a dW near both is storage noise (see `nulls`)

Error columns bound what the rounding of the spectrum does to each number, to first order: with |d sigma_i| <= noise_i,
|d erank| <= erank sum |log p_i + H| noise_i / sum sigma, and likewise for the others.
Not measured: directions (see `locking`), and whether the update is signal. In the bf16 view a direction that never
turns shows a falling stable rank.
Source: arXiv 2606.07082, sections 4.1 and 4.2 and appendix E; Roy and Vetterli, EUSIPCO 2007; Hill, Ann. Stat. 1975.
"""

import torch
from torch import Tensor

from opd_ops.geometry.gram import Spectrum
from opd_ops.geometry.nulls import iid_stable_rank
from opd_ops.geometry.update import Update
from opd_ops.linalg import stable_rank

NORMS = ("frobenius", "relative_norm", "spectral_norm", "stable_rank", "stable_rank_error", "rounding_norm")
RANKS = (
    "effective_rank",
    "effective_rank_error",
    "effective_rank_energy",
    "effective_rank_energy_error",
    "energy_top16",
    "energy_top16_error",
)


def effective_rank(weights: Tensor) -> float:
    """exp entropy of weights / sum(weights), in [1, r]; weights [r] are non-negative and not all zero."""
    return float(torch.special.entr(weights / weights.sum()).sum().exp())


def effective_rank_error(weights: Tensor, noise: Tensor) -> float:
    """First-order bound on the error of effective_rank where each weight is off by at most noise [r]."""
    shares = weights / weights.sum()
    entropy = torch.special.entr(shares).sum()
    # A weight within its own noise of zero is treated as one as large as the noise: log 0 has no first order.
    slope = (shares.clamp(min=1e-300).maximum(noise / weights.sum()).log() + entropy).abs()
    return float(entropy.exp() * (slope * noise).sum() / weights.sum())


def norm_rows(update: Update, base_norm: float, rounding: float, view: str) -> list[dict]:
    """One row: norms and stable rank; base_norm = ||W0||_F, rounding = nulls.rounding_norm of W_t."""
    (norm, error), moved = update.norm, not update.zero
    stable = stable_rank(update.frobenius, norm) if moved else None
    lacking = (("zero update", not moved), ("W0 is zero", base_norm == 0.0))
    return [
        {
            "view": view,
            "frobenius": update.frobenius,
            "relative_norm": update.frobenius / base_norm if base_norm else None,
            "spectral_norm": norm,
            "stable_rank": stable,
            "stable_rank_error": stable * 2 * error / norm if stable is not None else None,
            "rounding_norm": rounding,
            "iid_stable_rank": iid_stable_rank(*update.e.shape),
            "reason": "; ".join(text for text, true in lacking if true) or None,
        }
    ]


def rank_rows(update: Update, view: str) -> list[dict]:
    """One row: effective ranks and the energy of the 16 leading values."""
    if update.zero:
        return [{"view": view, **dict.fromkeys(RANKS), "reason": "zero update"}]
    return [{"view": view, **ranks(update.spectrum), "reason": None}]


def ranks(spectrum: Spectrum) -> dict[str, float]:
    """The columns RANKS of a spectrum that is not zero."""
    s, noise = spectrum.values, spectrum.noise
    squares, total = s.square(), float(s.square().sum())
    square_noise = 2 * s * noise + noise.square()
    top, rest = squares[:16].sum() / total, squares[16:].sum() / total
    error = (rest * square_noise[:16].sum() + top * square_noise[16:].sum()) / total
    found = (
        effective_rank(s),
        effective_rank_error(s, noise),
        effective_rank(squares),
        effective_rank_error(squares, square_noise),
        float(top),
        float(error),
    )
    return dict(zip(RANKS, found, strict=True))


def hill_cuts(settings: tuple[int, ...], r: int) -> tuple[int, ...]:
    """The k at which Hill is taken: the settings and 10 % of r = min(m, n), rounded, at least 2; ascending."""
    return tuple(sorted({*settings, max(2, round(r / 10))}))


def hill(spectrum: Spectrum, k: int) -> tuple[float | None, float | None, str | None]:
    """(index, error, None), or (None, None, reason) where the top k >= 2 values do not exist, vanish or are equal."""
    s, noise = spectrum.values, spectrum.noise
    if k > len(s):
        return None, None, f"k={k} exceeds min(m, n)={len(s)}"
    if not float(s[k - 1]) > float(noise[k - 1]):
        return None, None, f"sigma_{k} of the update is numerically zero"
    spread = float((s[: k - 1] / s[k - 1]).log().mean())
    relative = noise[:k] / s[:k]
    error = float(relative[: k - 1].mean() + relative[k - 1])
    if spread <= error:
        return None, None, f"the spread of the top {k} singular values is within their rounding"
    return 1.0 / spread, error / spread**2, None


def hill_rows(spectrum: Spectrum, ks: tuple[int, ...], view: str) -> list[dict]:
    """One row per k of `hill_cuts`."""
    found = [(k, *hill(spectrum, k)) for k in hill_cuts(ks, len(spectrum.values))]
    return [{"view": view, "k": k, "hill": index, "error": error, "reason": why} for k, index, error, why in found]


def missing_norms(view: str, reason: str) -> list[dict]:
    return [{"view": view, **dict.fromkeys((*NORMS, "iid_stable_rank")), "reason": reason}]


def missing_ranks(view: str, reason: str) -> list[dict]:
    return [{"view": view, **dict.fromkeys(RANKS), "reason": reason}]


def missing_hill(ks: tuple[int, ...], r: int, view: str, reason: str) -> list[dict]:
    return [{"view": view, "k": k, "hill": None, "error": None, "reason": reason} for k in hill_cuts(ks, r)]
