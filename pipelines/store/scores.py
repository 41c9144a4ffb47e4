"""Teacher scores by content: what was asked of which teacher names the object, so that a hit equals computing it.

    scores/<teacher digest, 16 characters>/<key>.parquet

key = SHA-256 of the teacher's digest and vocabulary, the setting it computes in, the support, and every byte of the
micro-batch that the teacher reads, its padding and split included, since float addition depends on both. Only positions
under the mask are kept: everything else is 0. An object carries the SHA-256 of its numbers; one that does not match, or
cannot be read, is a miss, and is replaced.

A cached `full` support answers no question about `top` or `sampled`: that those are the same bits is the scorer's
affair.
"""

import hashlib
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from opd_ops.batch import Batch
from opd_ops.teacher.scores import Scorer, Scores, Support
from pipelines.store.objects import Store

FIELDS = ("sampled", "entropy", "full", "ids", "top")  # of Scores


@dataclass(frozen=True)
class Packed:
    """Scores at the positions under the mask, in row-major order. arrays: [N] or [N, k] by field of `Scores`."""

    arrays: dict[str, np.ndarray]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


def pack(scores: Scores, mask: Tensor) -> Packed:
    """Scores of a micro-batch as numpy, where its mask [B, R] is not 0."""
    kept = mask != 0
    found = {name: getattr(scores, name) for name in FIELDS}
    return Packed({name: x[kept].cpu().numpy() for name, x in found.items() if x is not None})


def unpack(packed: Packed, mask: Tensor) -> Scores:
    """The scores [B, R, ...] on the mask's device, 0 where the mask is."""
    kept = (mask != 0).cpu()
    whole = {}
    for name, array in packed.arrays.items():
        values = torch.from_numpy(array.copy())  # Arrow's and Ray's arrays are read-only
        filled = torch.zeros(*kept.shape, *values.shape[1:], dtype=values.dtype)
        filled[kept] = values
        whole[name] = filled.to(mask.device)
    return Scores(**whole)


def key(scorer: Scorer, part: Batch, support: Support, candidates: Tensor | None = None, setting: str = "") -> str:
    """SHA-256 that names the scores of a micro-batch. Rewards, groups and behaviour are not part of the question."""
    asked = (support.kind, support.k, float(support.temperature), part.width)
    total = hashlib.sha256(repr((scorer.digest, scorer.vocabulary, setting, *asked)).encode())
    for tensor in (part.ids, part.attention, part.positions, part.mask != 0, candidates):
        if tensor is not None:
            array = tensor.cpu().contiguous().numpy()
            total.update(f"{array.dtype}{array.shape}".encode())
            total.update(array.tobytes())
    return total.hexdigest()


def setting(compute: str, device: str) -> str:
    """In words, what numbers depend on besides weights and what is asked, as this process would compute them."""
    kind = torch.cuda.get_device_name() if device.startswith("cuda") else torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    return f"{compute}, {device} {kind}, {threads} threads, torch {torch.__version__}"


class ScoreCache:
    """Teacher scores in a store. hits, misses, damaged: objects asked for since it was made; a damaged one is a miss.

    setting: in words, everything besides its weights that the teacher's numbers depend on; another one is another key.
    """

    def __init__(self, store: Store, setting: str = "") -> None:
        self.store, self.setting = store, setting
        self.hits = self.misses = self.damaged = 0
        self._broken: set[str] = set()

    def key(self, scorer: Scorer, part: Batch, support: Support, candidates: Tensor | None = None) -> str:
        """The object's name in the store."""
        # The digest of a hub name is the name, which may hold a slash.
        folder = re.sub(r"[^0-9A-Za-z-]", "-", scorer.digest)[:16]
        return f"scores/{folder}/{key(scorer, part, support, candidates, self.setting)}.parquet"

    def holds(self, key: str) -> bool:
        return self.store.exists(key)

    def load(self, key: str, mask: Tensor) -> Scores | None:
        """The scores under `key`, bit for bit as they were computed, or None."""
        try:
            data = self.store.read(key)
        except FileNotFoundError:
            self.misses += 1
            return None
        packed = _parse(data, key, mask)
        if packed is None:
            self.misses += 1
            self.damaged += 1
            self._broken.add(key)
            return None
        self.hits += 1
        return unpack(packed, mask)

    def save(self, key: str, packed: Packed, mask: Tensor) -> None:
        """Write scores under `key`, unless another writer has; a damaged object is replaced."""
        table = _table(packed, mask).replace_schema_metadata({"sha256": _digest(key, packed, _places(mask))})
        buffer = io.BytesIO()
        # Log-probabilities compress by a tenth, at twice the time.
        pq.write_table(table, buffer, compression="none", use_dictionary=False, write_statistics=False)
        if key in self._broken:
            self.store.write(key, buffer.getvalue())
            self._broken.remove(key)
            return
        with suppress(FileExistsError):  # another writer's, of the same content
            self.store.create(key, buffer.getvalue())


class CachedScorer:
    """A scorer that asks `scorer` only for what `cache` lacks.

    limit: bytes of scores that a step may keep; nothing is kept of a step with more (full-vocabulary scores take
    4 bytes times the vocabulary a token). A step is what one `prefetch` announces, or else one `score`.
    """

    def __init__(self, scorer: Scorer, cache: ScoreCache, limit: int | None = None) -> None:
        self.scorer, self.cache, self.limit = scorer, cache, limit
        self.digest, self.vocabulary = scorer.digest, scorer.vocabulary
        self._positions = 0  # under the masks of the step

    def prefetch(self, parts: Sequence[Batch], support: Support) -> None:
        """Pass on the hint, for the micro-batches that are not cached."""
        self._positions = sum(_count(part.mask) for part in parts)
        if support.kind != "candidates":  # what is asked of those is not known yet
            parts = [part for part in parts if not self.cache.holds(self.cache.key(self.scorer, part, support))]
        if parts:
            self.scorer.prefetch(parts, support)

    def sleep(self) -> None:
        """Pass it on."""
        self.scorer.sleep()

    def score(self, part: Batch, support: Support, candidates: Tensor | None = None) -> Scores:
        """Scores of a micro-batch, from the cache or computed and kept; the same bits either way."""
        key = self.cache.key(self.scorer, part, support, candidates)
        if (found := self.cache.load(key, part.mask)) is not None:
            return found
        packed = pack(self.scorer.score(part, support, candidates), part.mask)
        here = _count(part.mask)
        step = packed.nbytes * max(self._positions, here) / max(1, here)
        if self.limit is None or step <= self.limit:
            self.cache.save(key, packed, part.mask)
        return unpack(packed, part.mask)


def _count(mask: Tensor) -> int:
    return int((mask != 0).sum())


def whole(data: bytes, key: str) -> bool:
    """Whether an object holds the numbers that were saved under its key."""
    try:
        table = pq.read_table(pa.BufferReader(data)).combine_chunks()
        packed = Packed({name: _array(table, name) for name in FIELDS if name in table.column_names})
        stored = (table.schema.metadata or {}).get(b"sha256", b"").decode()
        return stored == _digest(key, packed, (_array(table, "row"), _array(table, "position")))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _places(mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
    rows, positions = np.nonzero(mask.cpu().numpy())
    return rows.astype(np.int32), positions.astype(np.int32)


def _digest(key: str, packed: Packed, places: tuple[np.ndarray, np.ndarray]) -> str:
    """SHA-256 of an object's name, places and numbers, so that no other object's content passes for it."""
    total = hashlib.sha256(key.encode())
    for name, array in zip(("row", "position"), places, strict=True):
        total.update(f"{name}{array.shape}".encode() + array.tobytes())
    for name, array in packed.arrays.items():
        total.update(f"{name}{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _table(packed: Packed, mask: Tensor) -> pa.Table:
    row, position = _places(mask)
    columns: dict[str, Any] = {"row": pa.array(row), "position": pa.array(position)}
    for name, array in packed.arrays.items():
        flat = pa.array(np.ascontiguousarray(array).reshape(-1))
        columns[name] = flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
    return pa.table(columns)


def _parse(data: bytes, key: str, mask: Tensor) -> Packed | None:
    """What an object holds, or None where it is damaged."""
    try:
        table = pq.read_table(pa.BufferReader(data)).combine_chunks()
        packed = Packed({name: _array(table, name) for name in FIELDS if name in table.column_names})
        stored = (table.schema.metadata or {}).get(b"sha256", b"").decode()
        places = all(
            np.array_equal(_array(table, name), found)
            for name, found in zip(("row", "position"), _places(mask), strict=True)
        )
        return packed if places and stored == _digest(key, packed, _places(mask)) else None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _array(table: pa.Table, name: str) -> np.ndarray:
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=True)
    width = column.type.list_size
    return column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), width)
