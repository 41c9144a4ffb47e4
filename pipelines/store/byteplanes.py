"""Integers split into byte planes and compressed with zstd, in chunks that can be read independently.

    code  = magic, width (8-byte little-endian), one 4-byte length for each plane of each chunk, the planes
    chunk = CHUNK entries (the last chunk may have fewer); its plane i is byte i of every entry, lowest first. A plane
            is compressed by zstd level 1, or stored raw if that saves less than a tenth; its length tells which

The number of entries is not stored: the reader passes it. Nothing is allocated before magic, width and lengths agree
with that number.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

MAGIC = b"opdp"
CHUNK = 1 << 18  # entries: a chunk stays in the cache, and its planes are long enough to compress
LEVEL = 1
WORTH = 0.9  # a plane is stored compressed only below this share of its raw size: reading it costs time
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_FIXED = len(MAGIC) + 8


def pack(entries: Callable[[int, int], np.ndarray], count: int, width: int) -> bytes:
    """The code of `count` entries of `width` bytes; `entries(begin, end)` returns entries begin..end."""
    codec, lengths, planes = pa.Codec("zstd", compression_level=LEVEL), [], []
    for begin in range(0, count, CHUNK):
        for plain in _split_bytes(entries(begin, min(begin + CHUNK, count)).view(UNSIGNED[width])):
            packed = codec.compress(plain, asbytes=True)
            planes.append(packed if len(packed) < WORTH * len(plain) else plain.data)
            lengths.append(len(planes[-1]))
    return b"".join([MAGIC, struct.pack(f"<Q{len(lengths)}I", width, *lengths), *planes])


class NoCode(ValueError):
    """The bytes are not a valid code. The message completes a sentence: "<tensor> is <message>"."""


@dataclass(frozen=True)
class BytePlanes:
    """A code of `count` entries of `width` bytes. size: bytes of the code; read(begin, end): those bytes of it."""

    read: Callable[[int, int], bytes]
    size: int
    count: int
    width: int

    @classmethod
    def from_bytes(cls, code: bytes, count: int, width: int) -> "BytePlanes":
        """The planes of a code that is in memory."""
        return cls(lambda begin, end: code[begin:end], len(code), count, width)

    def chunks(self, begin: int, end: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (offset, unsigned integers) for each chunk of entries begin..end; reads no other chunk.

        Errors: NoCode if the code is invalid or a plane does not decompress.
        """
        lengths, origin = self.index
        if begin >= end:
            return
        first, last = begin // CHUNK, -(-end // CHUNK)
        ends = origin + np.cumsum(lengths, dtype=np.int64)
        low = origin if first == 0 else int(ends[first * self.width - 1])
        data = memoryview(self.read(low, int(ends[last * self.width - 1])))
        codec, at = pa.Codec("zstd"), 0
        for chunk in range(first, last):
            start, stop = chunk * CHUNK, min((chunk + 1) * CHUNK, self.count)
            planes = []
            for index in range(self.width):
                length = int(lengths[chunk * self.width + index])
                planes.append(self._plane(codec, data[at : at + length], stop - start, index))
                at += length
            inside = slice(max(begin, start) - start, min(end, stop) - start)
            yield max(begin, start) - begin, _join_bytes(planes)[inside]

    @cached_property
    def index(self) -> tuple[np.ndarray, int]:
        """Lengths of all planes, chunk by chunk, and the offset of the first plane. Errors: as `chunks`."""
        planes = -(-self.count // CHUNK) * self.width
        origin = _FIXED + 4 * planes
        head = self.read(0, min(origin, self.size))
        if len(head) < origin or head[: len(MAGIC)] != MAGIC:
            raise NoCode(f"no code of {self.count} entries: {self.size} bytes that begin with {head[:4]!r}")
        (width,) = struct.unpack_from("<Q", head, len(MAGIC))
        lengths = np.frombuffer(head, "<u4", planes, _FIXED)
        entries = np.full(planes, CHUNK)
        entries[planes - self.width :] = self.count - CHUNK * (planes // self.width - 1) if planes else 0
        whole = origin + int(lengths.sum(dtype=np.int64))
        if width != self.width or whole != self.size or (lengths > entries).any():
            raise NoCode(
                f"a code of {whole} bytes of entries of {width}, where {self.size} bytes are to hold {self.count} "
                f"entries of {self.width}"
            )
        return lengths, origin

    def _plane(self, codec: pa.Codec, packed: memoryview, count: int, index: int) -> np.ndarray:
        try:
            plain = packed if len(packed) == count else codec.decompress(packed, count)
            return np.frombuffer(plain, np.uint8, count)
        except (OSError, ValueError) as error:
            raise NoCode(f"a code whose plane {index} does not decompress ({error})") from None


def _split_bytes(entries: np.ndarray) -> list[np.ndarray]:
    """The byte planes of unsigned integers, lowest first. Repeated halving: numpy does each half in one pass."""
    parts = [entries]
    while parts[0].itemsize > 1:
        half = UNSIGNED[parts[0].itemsize // 2]
        parts = [part.astype(half) for both in parts for part in (both, both >> (8 * half().itemsize))]
    return parts


def _join_bytes(planes: list[np.ndarray]) -> np.ndarray:
    """The inverse of `_split_bytes`."""
    while len(planes) > 1:
        size = planes[0].itemsize
        wide = [high.astype(UNSIGNED[2 * size]) for high in planes[1::2]]
        for low, high in zip(planes[::2], wide, strict=True):
            high <<= 8 * size
            high |= low
        planes = wide
    return planes[0]
