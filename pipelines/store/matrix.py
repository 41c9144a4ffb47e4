"""A reference to one weight in the orientation that is measured, [out, in], independent of how it is stored."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.store.tensors import ITEMSIZE, TensorRef

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MatrixRef:
    """A weight that is a stored tensor or a part of one. Only its own bytes are read.

    name: without .weight; for a part, its name in an unfused layout. source: name of the stored tensor. rows: row
    ranges of the stored tensor, before transposition; None is all. columns: one column range, of which every stride-th
    is read. transposed: stored as [in, out]. index: position in a stack. shape: [out, in], or as stored if not 2-D.
    """

    name: str
    source: str
    layer: int | None
    role: str
    ref: TensorRef
    shape: tuple[int, ...]
    rows: tuple[tuple[int, int], ...] | None = None
    columns: tuple[int, int] | None = None
    stride: int = 1
    transposed: bool = False
    index: int | None = None

    @property
    def nbytes(self) -> int:
        """Size of the weight in bytes, in its stored dtype."""
        return math.prod(self.shape) * ITEMSIZE[self.ref.dtype]

    def read(self) -> "Tensor":
        """The weight, contiguous, in its stored dtype. Reads only its rows; columns are selected after reading.

        Errors: ValueError with file and tensor if bytes are missing.
        """
        return self._normalise(self._ranges(), self.columns)

    def read_rows(self, begin: int, end: int) -> "Tensor":
        """Rows begin..end of the weight. Reads no other rows unless it is stored transposed. Errors: as `read`."""
        count = self.shape[0] if self.shape else 0
        if not 0 <= begin <= end <= count:
            raise ValueError(f"{self.name} has {count} rows, not {begin}..{end}; ask for rows it has")
        if self.transposed:
            first = self.columns[0] if self.columns else 0
            return self._normalise(self._ranges(), (first + begin * self.stride, first + end * self.stride))
        return self._normalise(_part(self._ranges(), begin, end), self.columns)

    def read_first_rows(self, count: int) -> "MatrixRef":
        """A reference to the first `count` rows. Only for weights that are stored as [out, in]."""
        return replace(self, rows=tuple(_part(self._ranges(), 0, count)), shape=(count, *self.shape[1:]))

    @property
    def _stored(self) -> tuple[int, ...]:
        return self.ref.shape if self.index is None else self.ref.shape[1:]

    def _ranges(self) -> Iterable[tuple[int, int]]:
        return ((0, self._stored[0]),) if self.rows is None and self._stored else self.rows or ()

    def _normalise(self, ranges: Iterable[tuple[int, int]], columns: tuple[int, int] | None) -> "Tensor":
        if not self._stored:
            return self.ref.read()
        import torch

        pieces = [self._piece(begin, end) for begin, end in ranges]
        weight = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        if columns:
            weight = weight[:, columns[0] : columns[1] : self.stride]
        return (weight.T if self.transposed else weight).contiguous()

    def _piece(self, begin: int, end: int) -> "Tensor":
        """Stored rows begin..end."""
        rest = self._stored[1:]
        row = math.prod(rest)
        origin = (self.index or 0) * self._stored[0] * row
        return self.ref.entries(origin + begin * row, origin + end * row).reshape(end - begin, *rest)


def _part(ranges: Iterable[tuple[int, int]], begin: int, end: int) -> list[tuple[int, int]]:
    """The stored ranges of rows begin..end of the concatenated ranges; one empty range if there are none."""
    parts, passed = [], 0
    for first, last in ranges:
        low, high = max(begin - passed, 0), min(end - passed, last - first)
        if low < high:
            parts.append((first + low, first + high))
        passed += last - first
    return parts or [(0, 0)]
