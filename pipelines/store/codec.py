"""Encodings of a tensor: as bf16, as a lossless difference to a base tensor, and as an update rounded to bf16.

HALF (`tensors`), lossless: the upper 16 bits of fp32 entries whose lower 16 bits are zero, such as former bf16 weights.

DELTA, lossless: differences of bit patterns, so that an entry that moved little is a small integer. Floats of one sign
are ordered as their bit patterns, and a step of k ulp becomes 2 k or 2 k - 1.

    d = zigzag(bits(w) - bits(base) mod 2^n)                        n bits per entry; without a base, bits(base) = 0

UPDATE, for fp32: r = RN_bf16(w - base), stored with its exponent in one byte (bits rotated left by one), and
v = RN_bf16(w), exact, stored as the DELTA of v to RN_bf16(base + r), which differs in about one weight of a thousand.
Decoding gives

    w' = the number nearest to base + r that rounds to v            |w' - w| <= 2^-8 |w - base| + 2^-24 |w|

The bf16 view of w' equals that of w bit for bit. This constraint makes no error larger: the numbers that round to v
form an interval that contains w. Errors of entries that moved by different amounts average out in every spectrum.
Errors of Adam's first step, which moves all entries by the same amount, do not.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from pipelines.store.byteplanes import UNSIGNED, BytePlanes, pack

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DELTA, UPDATE = "delta-planes-zstd/1", "update-bf16-planes-zstd/1"
PROBE = 1 << 12  # 16-bit words that `as_exact_bf16` checks before it checks the whole tensor
BOUND = 2.0**-8  # of UPDATE: relative error of an entry's |w - base|, if that is above the fp32 spacing at w
_SIGNED = {2: np.int16, 4: np.int32, 8: np.int64}
_TIE = 0x8000  # half the spacing of bf16, in bits of fp32


def as_exact_bf16(tensor: "Tensor") -> "Tensor | None":
    """An fp32 tensor as bf16 if that is exact bit for bit, else None."""
    import torch

    if tensor.dtype != torch.float32:
        return None
    bits = _bits(tensor).view(np.uint16)
    # The first entries already reject nearly every tensor that is not exact.
    if not bits.size or bits[:PROBE:2].any() or bits[::2].any():
        return None
    return torch.from_numpy(bits[1::2].view(np.int16)).clone().view(torch.bfloat16).reshape(tensor.shape)


def encode_delta(tensor: "Tensor", base: "Tensor | None" = None) -> bytes:
    """The lossless DELTA code of `tensor` [any shape; 2, 4 or 8 bytes per entry]. Equal inputs give equal bytes.

    Errors: ValueError for a base of another shape or dtype.
    """
    if base is not None and (base.dtype, base.shape) != (tensor.dtype, tensor.shape):
        raise ValueError(
            f"a {tensor.dtype} {tuple(tensor.shape)} has no difference from a {base.dtype} {tuple(base.shape)}"
        )
    bits, others = _bits(tensor), None if base is None else _bits(base)

    def zigzag(begin: int, end: int) -> np.ndarray:
        d = bits[begin:end] if others is None else bits[begin:end] - others[begin:end]  # wraps around
        return (d << 1) ^ (d >> (8 * d.itemsize - 1))

    return pack(zigzag, len(bits), tensor.dtype.itemsize)


def decode_delta(
    planes: BytePlanes, dtype: "torch.dtype", begin: int, end: int, base: "Tensor | None" = None
) -> "Tensor":
    """Entries begin..end of the tensor that `planes` encodes, flat.

    base: the same entries of its base, flat and contiguous; the result reuses their memory. Errors: as
    `BytePlanes.chunks`, raised before anything is allocated or changed.
    """
    import torch

    _ = planes.index
    whole = UNSIGNED[planes.width]
    bits = np.zeros(end - begin, whole) if base is None else _bits(base).view(whole)
    for at, zigzag in planes.chunks(begin, end):
        sign = zigzag & 1
        np.negative(sign, out=sign)
        zigzag >>= 1
        zigzag ^= sign
        bits[at : at + len(zigzag)] += zigzag
    return torch.from_numpy(bits.view(_SIGNED[planes.width])).view(dtype)


def encode_update(tensor: "Tensor", base: "Tensor") -> "tuple[bytes, bytes, Tensor]":
    """The codes of r and of v, and the decoded w' (`apply_update`).

    Errors: ValueError if the tensor is not fp32 or the base has another dtype or shape.
    """
    import torch

    if (tensor.dtype, base.dtype, base.shape) != (torch.float32, torch.float32, tensor.shape):
        raise ValueError(
            f"a {tensor.dtype} {tuple(tensor.shape)} has no update in bf16 from a {base.dtype} {tuple(base.shape)}; "
            "both are to be fp32"
        )
    w, b = (x.detach().cpu().contiguous().reshape(-1) for x in (tensor, base))
    r, view = (w - b).bfloat16(), w.bfloat16()
    bits = _bits(r).view(np.uint16)

    def rotated(begin: int, end: int) -> np.ndarray:
        return (bits[begin:end] << 1) | (bits[begin:end] >> 15)

    decoded = _add_update(b, r)
    served = decoded.bfloat16()
    codes = pack(rotated, w.numel(), 2), encode_delta(view, served)
    places = torch.from_numpy(np.flatnonzero(_bits(view) != _bits(served)))
    decoded[places] = _nearest_in_view(decoded[places], view[places])
    return *codes, decoded.reshape(tensor.shape)


def apply_update(update: BytePlanes, view: BytePlanes, begin: int, end: int, base: "Tensor") -> "Tensor":
    """Entries begin..end of w', flat, from the codes of r and of v. base, errors: as in `decode_delta`."""
    import torch

    _ = update.index, view.index
    for (at, rotated), (_, zigzag) in zip(update.chunks(begin, end), view.chunks(begin, end), strict=True):
        sign = rotated << 15
        rotated >>= 1
        rotated |= sign
        near = base[at : at + len(rotated)]
        _add_update(near, torch.from_numpy(rotated.view(np.int16)).view(torch.bfloat16), out=near)
        # Entries with difference zero already round to v.
        if len(others := np.flatnonzero(zigzag != 0)):
            places, steps = torch.from_numpy(others), zigzag[others]
            difference = torch.from_numpy(((steps >> 1) ^ np.negative(steps & 1)).view(np.int16))
            served = (near[places].bfloat16().view(torch.int16) + difference).view(torch.bfloat16)
            near[places] = _nearest_in_view(near[places], served)
    return base


def _nearest_in_view(near: "Tensor", view: "Tensor") -> "Tensor":
    """The numbers nearest to `near` that round to `view`; the view itself where it is not finite."""
    import torch

    # The interval that rounds to v: half a spacing below and above. Ties go to the even number, so the ends are
    # excluded where v is odd.
    bits = view.view(torch.int16).int() << 16
    odd, magnitude = (bits >> 16) & 1, bits & 0x7FFFFFFF
    low = (magnitude - _TIE + odd).clamp_(min=0).view(torch.float32)
    high = (magnitude + _TIE - odd).view(torch.float32)
    clamped = torch.minimum(torch.maximum(torch.where(bits < 0, -near, near), low), high)
    return torch.where(torch.isfinite(view), torch.copysign(clamped, view.float()), view.float())


def _add_update(base: "Tensor", r: "Tensor", out: "Tensor | None" = None) -> "Tensor":
    """base + r in fp32. NaN becomes 0, since the bits of a NaN depend on the machine."""
    import torch

    near = torch.add(base, r.float(), out=out)  # converting first is faster than adding mixed dtypes
    if math.isfinite(float(near.sum())):
        return near
    return near.nan_to_num_(nan=0.0, posinf=math.inf, neginf=-math.inf)


def _bits(tensor: "Tensor") -> np.ndarray:
    """The entries' bit patterns as signed integers."""
    import torch

    patterns = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize]
    return tensor.detach().cpu().contiguous().view(patterns).reshape(-1).numpy()
