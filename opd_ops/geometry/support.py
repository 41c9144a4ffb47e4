"""D1, update support: unchanged = #{ij : W_t,ij == W0,ij} / n, in one view.

Values are compared: +0 equals -0, and NaN differs even from NaN. On bf16 values this is the paper's relative test
|a - b| <= eta max(|a|, |b|) for every eta < 2^-8, since two unequal bf16 numbers differ by at least 2^-8 of the larger.
The code compares bit patterns in chunks that fit the cache, and corrects for the two zeros and NaN. Not measured: how
far a changed weight moved. In the bf16 view, "unchanged" means that the change is below bf16 rounding.
Source: arXiv 2606.07082, section 3.1 and appendix C.3; arXiv 2511.08567, proposition E.3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opd_ops.geometry.bitset import Bits, Packer
from opd_ops.geometry.views import as_view, dtype_name

METHOD = "equality"
CHUNK = 1 << 19  # weights compared at a time
PATTERNS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes per weight


@dataclass(frozen=True, eq=False)
class Changes:
    """`count` of `numel` weights differ in the view. bits: which ones, row-major; None if only counted."""

    bits: Bits | None
    count: int
    numel: int

    @property
    def unchanged(self) -> float:
        """Fraction in [0, 1] of equal weights."""
        return (self.numel - self.count) / self.numel


def compare_weights(base: Tensor, snapshot: Tensor, view: str, weights_only_count: bool = False) -> Changes:
    """The differences of two stored weights of the same nonempty shape, of any dtypes.

    weights_only_count: return only the count, no bits. Contiguous weights are not copied.
    Errors: ValueError for an unknown view or dtype, or shapes that differ.
    """
    if base.shape != snapshot.shape:
        raise ValueError(f"shapes differ: {tuple(base.shape)} and {tuple(snapshot.shape)}")
    shared = _shared_dtype(base.dtype, snapshot.dtype, view)
    infinity = int(torch.tensor(float("inf"), dtype=shared).view(PATTERNS[shared.itemsize]))
    packer, count = Packer(), 0
    before, after = (w.detach().reshape(-1).split(CHUNK) for w in (base, snapshot))
    for a, b in zip(before, after, strict=True):
        differ = _differ(_patterns(a, view, shared), _patterns(b, view, shared), infinity)
        count += int(np.count_nonzero(differ))
        if not weights_only_count:
            packer.add(differ)
    return Changes(None if weights_only_count else packer.bits(), count, base.numel())


def rows(changes: Changes, view: str, scope: str) -> list[dict]:
    """One row: view, numel, unchanged, scope."""
    return [{"view": view, "numel": changes.numel, "unchanged": changes.unchanged, "scope": scope}]


def _shared_dtype(base: torch.dtype, snapshot: torch.dtype, view: str) -> torch.dtype:
    """The dtype that represents the view of both weights exactly."""
    for stored in (base, snapshot):
        dtype_name(stored)  # refuses what geometry does not read
    if view not in ("bf16", "master"):
        raise ValueError(f"view {view!r} is neither bf16 nor master")
    if view == "bf16":
        return torch.bfloat16
    return base if base == snapshot else torch.float64


def _patterns(chunk: Tensor, view: str, shared: torch.dtype) -> np.ndarray:
    """The chunk's values in the view as the integers that `shared` stores."""
    values = chunk.to(shared) if view == "bf16" or chunk.dtype == shared else as_view(chunk, view)
    return values.view(PATTERNS[shared.itemsize]).cpu().numpy()


def _differ(a: np.ndarray, b: np.ndarray, infinity: int) -> np.ndarray:
    """Whether values differ, from their bit patterns. infinity: its pattern; larger magnitudes are NaN."""
    sign = int(np.iinfo(a.dtype).min)
    differ = a != b
    # a | b equals `sign`, the smallest integer, only if one value is -0 and the other a zero.
    union = a | b
    if union.min() == sign:
        differ &= union != sign
    # Only NaN in `a` needs a correction: NaN in `b` alone already has another pattern than a number.
    if a.max() > infinity or a.view(f"u{a.dtype.itemsize}").max() > infinity - sign:
        differ |= (a & ~sign) > infinity
    return differ
