"""Null updates, to be measured like the true update, and lower limits for its norm.

    fixed_direction    bf16(W0 + nu D / ||D||_F) - W0: an update that never turns, of norm nu before storage
    shuffled           the entries of an update in a random order: the same magnitudes, no row, column or subspace
    iid_stable_rank    m n / (sqrt m + sqrt n)^2: the stable rank of m x n independent noise as m and n grow
    rounding_norm      sqrt(sum_ij ulp(W_t,ij)^2 / 12): the norm of uniform rounding noise of a storage dtype

All are matrices W_t - W0 [m, n] in weight units. A metric is evidence about training only if it differs from its null:
in the bf16 view, a fixed direction has falling stable rank and Hill index, and a rising similarity to the end as
its norm grows past the storage grid. The nulls keep only the norm (fixed_direction) or the entries (shuffled) of the
true update. Each is drawn once, so the spread of a null is not measured.
Source: this project's own check of arXiv 2606.07082, section 4; random matrices: Bai and Yin, Ann. Probab. 21 (1993);
shuffling by random buckets: Rao, Sankhya A 23 (1961), and Sandelius, J. R. Stat. Soc. B 24 (1962).
"""

import math

import numpy as np
import torch
from torch import Tensor

from opd_ops.geometry import scale

CHUNK = 1 << 18  # entries processed at a time; a few f32 temporaries of this size fit into the cache
BUCKET = 1 << 18  # mean number of entries of a bucket
MOST = 256  # buckets, so that a bucket number takes one byte


def fixed_direction(base_view: Tensor, final_delta: Tensor, norm: float) -> Tensor:
    """The fixed direction null at Frobenius norm `norm`, f32 [m, n].

    base_view: W0 of the bf16 view, f32. final_delta: the direction D, f32 or float64, not zero. Entries are infinite
    where the weight exceeds bf16.
    """
    power = scale.exponent(scale.largest(final_delta))
    size = scale.frobenius(final_delta) / scale.unit(power)
    if size == 0.0:
        raise ValueError("a zero update has no direction")
    delta = torch.empty(base_view.shape, dtype=torch.float32, device=base_view.device)
    for out, w, d in zip(_chunks(delta), _chunks(base_view), _chunks(final_delta), strict=True):
        torch.mul(scale.multiply(d, -power).float(), norm / size, out=out)
        out.copy_(out.add_(w).to(torch.bfloat16)).sub_(w)
    return delta


def shuffle_entries(delta: Tensor, seed: int) -> Tensor:
    """The entries of delta [m, n] in a uniformly random order that depends only on the seed and m n; f32.

    At an extreme scale, entries are divided by a power of two (`scale`), since f32 would lose digits. Each entry goes
    into a random bucket, and each bucket is shuffled. This needs one byte per entry instead of a whole permutation.
    """
    power = scale.exponent(scale.largest(delta))
    flat = scale.multiply(delta.detach(), -power).reshape(-1).to("cpu", torch.float32)
    shuffled = torch.empty_like(flat)
    buckets = min(MOST, -(-flat.numel() // BUCKET))
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(0, buckets, flat.shape, dtype=torch.uint8, generator=generator)
    sizes = torch.zeros(buckets, dtype=torch.int64)
    for chunk in places.split(CHUNK):
        sizes += torch.bincount(chunk, minlength=buckets)
    starts = (sizes.cumsum(0) - sizes).tolist()
    free = list(starts)
    for chunk, place in zip(flat.split(CHUNK), places.split(CHUNK), strict=True):
        gathered = chunk.numpy()[np.argsort(place.numpy(), kind="stable")]
        at = 0
        for bucket, count in enumerate(torch.bincount(place, minlength=buckets).tolist()):
            shuffled.numpy()[free[bucket] : free[bucket] + count] = gathered[at : at + count]
            free[bucket] += count
            at += count
    for start, size in zip(starts, sizes.tolist(), strict=True):
        order = torch.randperm(size, dtype=torch.int32, generator=generator)
        bucket = shuffled[start : start + size]
        bucket.copy_(bucket.index_select(0, order))
    return shuffled.reshape(delta.shape).to(delta.device)


def iid_stable_rank(m: int, n: int) -> float:
    """The limit of the stable rank for large m, n, independent entries and any variance."""
    return m * n / (math.sqrt(m) + math.sqrt(n)) ** 2


def rounding_norm(w: Tensor, storage: torch.dtype) -> float:
    """The rounding floor in weight units, for values w, f32 or float64, rounded to `storage`.

    ulp(x) = eps 2^floor(log2 |x|), and the spacing of subnormals below the smallest normal. Exact zeros are left out:
    they are usually untrained or pruned weights, not rounded ones.
    """
    grid, squares = torch.finfo(storage), 0.0
    for chunk in _chunks(w):
        # Without sign and significand, a float64 is the power of two below it; that of an f32 subnormal is exact too.
        powers = (chunk.double().view(torch.int64) & 0x7FF0000000000000).view(torch.float64)
        powers.clamp_(min=grid.smallest_normal).mul_(chunk != 0.0)
        squares += float(torch.dot(powers, powers))
    return grid.eps * math.sqrt(squares / 12.0)


def _chunks(w: Tensor) -> tuple[Tensor, ...]:
    return w.detach().reshape(-1).split(CHUNK)
