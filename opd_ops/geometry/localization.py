"""D4, localization: overlap(M) = |M and changed| / |changed| for two masks M of W0, each of weight alpha n.

    principal       top alpha of |U_r diag(s_r) V_r'|, the rank-r part of W0, r = max(1, min(64, min(m, n) // 8))
    low_magnitude   bottom alpha of |W0|

The overlap expected by chance is alpha. Ties at the threshold (frequent on coarse storage grids) are handled in
expectation: each tied entry is a member with the same share, chosen so that the mask weighs exactly alpha n. This is
the mean over random tie-breaking, so the overlap is unbiased. Thresholds are exact: a radix selection over the bit
patterns of scores, which are ordered as their magnitudes. The rank-r part is an f32 product, computed again for each
pass in row blocks, so it is never stored whole; entries within its rounding (1e-6) of the threshold may swap.
Not measured: the size of a change, and masks of W_t.
Source: arXiv 2606.07082, section 3.1 and appendix C.3 (which prints r = 64 and alpha = 0.5; its figure 3 is consistent
only with alpha near 0.3); the principal mask is from arXiv 2506.00772.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opd_ops.geometry.bitset import Bits, Packer
from opd_ops.geometry.support import PATTERNS, Changes

NAMES = ("principal", "low_magnitude")
CHUNK = 1 << 19  # entries scored at a time
DIGIT = 16  # bits of a pattern that one pass over the scores determines


@dataclass(frozen=True, eq=False)
class Membership:
    """Weights of entries in a mask: 1 inside, `share` in (0, 1] on ties, 0 elsewhere."""

    inside: Bits
    tied: Bits
    share: float

    def weight(self, entries: Bits) -> float:
        """Total membership of a set of entries."""
        return self.inside.count_common(entries) + self.share * self.tied.count_common(entries)


@dataclass(frozen=True, eq=False)
class Mask:
    """A named mask of W0. rank: of the principal reconstruction, None for low_magnitude."""

    name: str
    alpha: float
    rank: int | None
    members: Membership

    def tensors(self) -> dict[str, Tensor]:
        """The tensors to store; `from_tensors` is the inverse."""
        members = self.members
        facts = (NAMES.index(self.name), self.alpha, self.rank or 0, members.share, members.inside.numel)
        return {
            "inside": torch.from_numpy(members.inside.packed),
            "tied": torch.from_numpy(members.tied.packed),
            "facts": torch.tensor(facts, dtype=torch.float64),
        }

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> "Mask":
        name, alpha, rank, share, numel = tensors["facts"].tolist()
        inside, tied = (Bits(tensors[part].numpy(), int(numel)) for part in ("inside", "tied"))
        return Mask(NAMES[int(name)], alpha, int(rank) or None, Membership(inside, tied, share))

    @staticmethod
    def several_to(masks: tuple["Mask", ...]) -> dict[str, Tensor]:
        """`tensors` of all masks, each name prefixed with the mask's index; `several_from` is the inverse."""
        return {f"{i}.{name}": tensor for i, mask in enumerate(masks) for name, tensor in mask.tensors().items()}

    @staticmethod
    def several_from(tensors: dict[str, Tensor]) -> tuple["Mask", ...]:
        parts = ("inside", "tied", "facts")
        return tuple(
            Mask.from_tensors({part: tensors[f"{i}.{part}"] for part in parts})
            for i in range(len(tensors) // len(parts))
        )


@dataclass(frozen=True)
class Scores:
    """Scores of a matrix' entries. blocks() iterates over the same float blocks in row-major order on every call."""

    blocks: Callable[[], Iterable[Tensor]]
    dtype: torch.dtype
    numel: int

    def sort_keys(self, largest: bool) -> Iterator[np.ndarray]:
        """Non-negative integers that rise with |score| (fall if not `largest`). Each block reuses one buffer."""
        pattern = PATTERNS[self.dtype.itemsize]
        magnitude = torch.iinfo(pattern).max
        buffer = torch.empty(0, dtype=pattern)
        for block in self.blocks():
            bits = block.reshape(-1).view(pattern)
            if buffer.numel() < bits.numel():
                buffer = torch.empty_like(bits)
            keys = buffer[: bits.numel()]
            torch.bitwise_and(bits, magnitude, out=keys)
            yield (keys if largest else keys.bitwise_xor_(magnitude)).numpy()


def top_members(scores: Scores, alphas: tuple[float, ...], largest: bool = True) -> tuple[Membership, ...]:
    """For each 0 < alpha < 1, membership of the largest (or smallest) |scores| with total weight alpha n."""
    targets = [alpha * scores.numel for alpha in alphas]
    thresholds = _thresholds(scores, [math.ceil(target) for target in targets], largest)
    packers = [(Packer(), Packer()) for _ in alphas]
    for keys in scores.sort_keys(largest):
        for threshold, (inside, tied) in zip(thresholds, packers, strict=True):
            inside.add(keys > threshold)
            tied.add(keys == threshold)
    return tuple(
        _member(target, inside.bits(), tied.bits()) for target, (inside, tied) in zip(targets, packers, strict=True)
    )


def mask_rank(rows: int, columns: int) -> int:
    """Rank r of the principal reconstruction: 64 as in the paper, or min(m, n) // 8 if that is smaller."""
    return max(1, min(64, min(rows, columns) // 8))


def masks(base_weight: Tensor, u: Tensor, s: Tensor, v: Tensor, alphas: tuple[float, ...]) -> tuple[Mask, ...]:
    """Both masks at every alpha, from W0 [out, in] of the view, any float dtype, on the CPU.

    u [out, r'], s [>= r'], v [in, r']: its leading singular triplets, r' >= mask_rank of them, float64 or f32.
    """
    r = mask_rank(*base_weight.shape)
    principal = top_members(_principal(u[:, :r], s[:r], v[:, :r]), alphas)
    flat = base_weight.detach().reshape(-1)
    low = top_members(Scores(lambda: flat.split(CHUNK), flat.dtype, flat.numel()), alphas, largest=False)
    return tuple(
        Mask(name, alpha, rank, members)
        for alpha, *both in zip(alphas, principal, low, strict=True)
        for name, rank, members in zip(NAMES, (r, None), both, strict=True)
    )


def rows(masks: tuple[Mask, ...], changes: Changes, view: str) -> list[dict]:
    """One row per mask; overlap is null if nothing changed. changes: of W_t from W0 in the view, with bits."""
    if changes.bits is None:
        raise ValueError("an overlap needs to know which weights changed, not only how many")
    return [
        {
            "view": view,
            "mask": mask.name,
            "alpha": mask.alpha,
            "rank": mask.rank,
            "overlap": mask.members.weight(changes.bits) / changes.count if changes.count else None,
            "density": changes.count / changes.numel,
            "reason": None if changes.count else "no weight changed",
        }
        for mask in masks
    ]


def missing(shape: tuple[int, ...], alphas: tuple[float, ...], view: str, reason: str) -> list[dict]:
    """Null rows of a matrix [m, n], with a reason."""
    ranks = dict(zip(NAMES, (mask_rank(*shape), None), strict=True))
    row = {"overlap": None, "density": None, "reason": reason}
    return [
        {"view": view, "mask": name, "alpha": alpha, "rank": rank, **row}
        for alpha in alphas
        for name, rank in ranks.items()
    ]


def _principal(u: Tensor, s: Tensor, v: Tensor) -> Scores:
    """Scores U diag(s) V' / s_1 in row blocks. Dividing by s_1 avoids f32 overflow and keeps the order."""
    left = (u * (s / s[0].clamp(min=torch.finfo(s.dtype).tiny))).float()
    right = v.T.float().contiguous()
    columns = right.shape[1]
    height = max(1, CHUNK // columns)
    # One buffer for all passes: BLAS may round differently for another memory alignment.
    product = torch.empty(min(height, len(left)), columns)

    def blocks() -> Iterator[Tensor]:
        for rows in left.split(height):
            yield torch.mm(rows, right, out=product[: len(rows)])

    return Scores(blocks, torch.float32, len(left) * columns)


def _thresholds(scores: Scores, ranks: list[int], largest: bool) -> list[int]:
    """The keys of given ranks, 1 for the largest key, digit by digit from the highest."""
    prefixes = [(0, rank) for rank in ranks]  # the key's leading digits, and its rank among the keys that share them
    width = 8 * scores.dtype.itemsize
    for shift in range(width - DIGIT, -1, -DIGIT):
        counts = {prefix: np.zeros(1 << DIGIT, dtype=np.int64) for prefix, _ in prefixes}
        for keys in scores.sort_keys(largest) if counts else ():
            for prefix, count in counts.items():
                rest = keys if shift + DIGIT == width else _rest(keys, prefix, shift + DIGIT)
                count += np.bincount(rest >> shift, minlength=1 << DIGIT)
        prefixes = [_descend(prefix, rank, counts[prefix]) for prefix, rank in prefixes]
    return [key for key, _ in prefixes]


def _rest(keys: np.ndarray, prefix: int, bits: int) -> np.ndarray:
    """The lowest bits of the keys whose higher bits equal the prefix."""
    offset = keys - (prefix << bits)
    return offset[offset.view(f"u{keys.dtype.itemsize}") < 1 << bits]


def _descend(prefix: int, rank: int, counts: np.ndarray) -> tuple[int, int]:
    """The prefix extended by the next digit of the key of a rank, and the rank among the keys with that prefix."""
    above = np.cumsum(counts[::-1])
    place = int(np.searchsorted(above, rank))
    return (prefix << DIGIT) + len(counts) - 1 - place, rank - (int(above[place - 1]) if place else 0)


def _member(target: float, inside: Bits, tied: Bits) -> Membership:
    sure, ties = inside.count(), tied.count()
    if not sure < target <= sure + ties:
        raise RuntimeError(f"scores changed between two readings: {sure} inside and {ties} tied for {target}")
    return Membership(inside, tied, (target - sure) / ties)
