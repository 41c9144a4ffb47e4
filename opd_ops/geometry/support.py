"""D1, update support: unchanged = #{ij : W_t,ij == W0,ij} / n, in one view.

Equality of values: +0 equals -0, NaN is changed even against NaN. On bf16 values this is the paper's relative test
|a - b| <= eta max(|a|, |b|) for every eta < 2^-8, since two unequal bf16 numbers differ by at least 2^-8 of the larger.
Not measured: how far a changed weight moved. In the bf16 view "unchanged" means invisible to bf16, not untouched.
Source: arXiv 2606.07082, section 3.1 and appendix C.3; arXiv 2511.08567, proposition E.3.
"""

from torch import Tensor

from opd_ops.geometry.views import as_view

METHOD = "equality"
CHUNK = 1 << 22  # weights compared at once: the float64 views of an embedding never exist whole


def unchanged(base: Tensor, snapshot: Tensor, view: str) -> float:
    """Fraction in [0, 1] of equal weights; base and snapshot as stored, any dtype and any equal shape."""
    before, after = base.reshape(-1).split(CHUNK), snapshot.reshape(-1).split(CHUNK)
    same = sum(int((as_view(a, view) == as_view(b, view)).sum()) for a, b in zip(before, after, strict=True))
    return same / base.numel()


def rows(base: Tensor, snapshot: Tensor, view: str, scope: str) -> list[dict]:
    """One row: view, numel, unchanged, scope."""
    fraction = unchanged(base, snapshot, view)
    return [{"view": view, "numel": base.numel(), "unchanged": fraction, "scope": scope}]
