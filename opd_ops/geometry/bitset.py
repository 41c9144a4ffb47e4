"""Sets of matrix entries with one bit per entry: 6 MB for 4096 x 12288, against 50 MB for a bool tensor.

Entry i in row-major order is bit i % 8 of byte i // 8. The bytes fill whole 64-bit words; bits past the last entry are
zero, so counts need no mask. CPU only.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

WORD = 64
BLOCK = 1 << 15  # words counted at once


@dataclass(frozen=True, eq=False)
class Bits:
    """packed: uint8 [8 ceil(numel / 64)]."""

    packed: np.ndarray
    numel: int

    def __post_init__(self) -> None:
        if self.packed.dtype != np.uint8 or self.packed.shape != (_bytes(self.numel),):
            raise ValueError(f"{self.numel} bits do not fill {self.packed.dtype} {self.packed.shape}")

    def count(self) -> int:
        """Number of entries in the set."""
        words = self.packed.view(np.uint64)
        return sum(int(np.bitwise_count(words[i : i + BLOCK]).sum()) for i in range(0, len(words), BLOCK))

    def count_common(self, other: "Bits") -> int:
        """Number of entries in both sets. Errors: ValueError if the sets have different sizes."""
        if self.numel != other.numel:
            raise ValueError(f"sets of {self.numel} and {other.numel} entries have nothing in common")
        ours, theirs = self.packed.view(np.uint64), other.packed.view(np.uint64)
        blocks = (slice(i, i + BLOCK) for i in range(0, len(ours), BLOCK))
        return sum(int(np.bitwise_count(ours[block] & theirs[block]).sum()) for block in blocks)

    def to_bool(self) -> Tensor:
        """bool [numel]."""
        return torch.from_numpy(np.unpackbits(self.packed, count=self.numel, bitorder="little").view(bool))


class Packer:
    """Builds a `Bits` from consecutive chunks, so that several sets can be filled in one pass."""

    def __init__(self) -> None:
        self._numel = 0
        self._packed: list[np.ndarray] = []
        self._rest = np.zeros(0, dtype=bool)  # fewer than 8 entries of an incomplete byte

    def add(self, chunk: np.ndarray) -> None:
        """Append a bool array. It is copied, so the caller may overwrite it."""
        flat = chunk.reshape(-1)
        self._numel += flat.size
        if self._rest.size:
            flat = np.concatenate([self._rest, flat])
        whole = flat.size // 8 * 8
        self._packed.append(np.packbits(flat[:whole], bitorder="little"))
        self._rest = flat[whole:].copy()

    def bits(self) -> Bits:
        """The set of all entries added so far."""
        packed = np.concatenate([*self._packed, np.packbits(self._rest, bitorder="little")])
        return Bits(np.pad(packed, (0, _bytes(self._numel) - packed.size)), self._numel)


def _bytes(numel: int) -> int:
    return -(-numel // WORD) * (WORD // 8)
