"""Codes of a tensor: as bf16, and beside a base of the same shape a lossless one and one of the update in bf16.

HALF (`tensors`), lossless: the upper 16 bits of fp32 whose lower ones are zero, as of weights that were bf16 before.

DELTA, lossless: differences of bits, so that what moved little is a small number. Floats of one sign are ordered as
their bits are, and a step of k ulp is 2 k or 2 k - 1.

    d = zigzag(bits(w) - bits(base) mod 2^n)                        n bits an entry; without a base it is zero

UPDATE, of fp32: r = RN_bf16(w - base), kept with the exponent in one byte (bits rotated left by one), and beside it
v = RN_bf16(w), exactly, as DELTA of v beside RN_bf16(base + r), from which one weight in a thousand differs. What comes
back is

    w' = the number nearest to base + r that rounds to v            |w' - w| <= 2^-8 |w - base| + 2^-24 |w|

The bf16 view of w' is that of w, bit for bit, and holding to it makes no error larger: the numbers that round to v are
an interval, and w lies in it. Errors of entries that moved by different amounts average out in every spectrum; those of
Adam's first step, which moves all by one amount, do not.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from pipelines.store.byteplanes import UNSIGNED, BytePlanes, pack

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DELTA, UPDATE = "delta-planes-zstd/1", "update-bf16-planes-zstd/1"
PROBE = 1 << 12  # 16-bit words of a tensor that `half` looks at before all of them
BOUND = 2.0**-8  # of UPDATE: error of an entry over its |w - base|, where that is above the spacing of fp32 at w
_SIGNED = {2: np.int16, 4: np.int32, 8: np.int64}
_TIE = 0x8000  # half the spacing of bf16, in bits of fp32


def as_exact_bf16(tensor: "Tensor") -> "Tensor | None":
    """An fp32 tensor as bf16 where that is exact, bit for bit; else None."""
    import torch

    if tensor.dtype != torch.float32:
        return None
    bits = _bits(tensor).view(np.uint16)
    # The first entries tell of nearly every tensor that is not.
    if not bits.size or bits[:PROBE:2].any() or bits[::2].any():
        return None
    return torch.from_numpy(bits[1::2].view(np.int16)).clone().view(torch.bfloat16).reshape(tensor.shape)


def encode_delta(tensor: "Tensor", base: "Tensor | None" = None) -> bytes:
    """The lossless code of `tensor` [any shape; 2, 4 or 8 bytes an entry]; equal inputs, equal bytes.

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
    """Entries begin..end of the tensor whose code this is, flat.

    base: the same entries of its base, flat and contiguous; their memory becomes that of the result. Errors: as
    `Planes.chunks`, before anything is allocated or changed.
    """
    import torch

    _ = planes.index
    whole = UNSIGNED[planes.width]
    found = np.zeros(end - begin, whole) if base is None else _bits(base).view(whole)
    for at, zigzag in planes.chunks(begin, end):
        sign = zigzag & 1
        np.negative(sign, out=sign)
        zigzag >>= 1
        zigzag ^= sign
        found[at : at + len(zigzag)] += zigzag
    return torch.from_numpy(found.view(_SIGNED[planes.width])).view(dtype)


def encode_update(tensor: "Tensor", base: "Tensor") -> "tuple[bytes, bytes, Tensor]":
    """The codes of r and of v, and w', which `apply` makes of them.

    Errors: ValueError where the tensor is not fp32, or as `delta`.
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

    found = _add_update(b, r)
    served = found.bfloat16()
    codes = pack(rotated, w.numel(), 2), encode_delta(view, served)
    places = torch.from_numpy(np.flatnonzero(_bits(view) != _bits(served)))
    found[places] = _nearest_in_view(found[places], view[places])
    return *codes, found.reshape(tensor.shape)


def apply_update(update: BytePlanes, view: BytePlanes, begin: int, end: int, base: "Tensor") -> "Tensor":
    """Entries begin..end of w', flat, from the codes of r and of v. base, errors: as of `undelta`."""
    import torch

    _ = update.index, view.index
    for (at, rotated), (_, zigzag) in zip(update.chunks(begin, end), view.chunks(begin, end), strict=True):
        sign = rotated << 15
        rotated >>= 1
        rotated |= sign
        near = base[at : at + len(rotated)]
        _add_update(near, torch.from_numpy(rotated.view(np.int16)).view(torch.bfloat16), out=near)
        # Where the difference is zero, the sum rounds to v as it is.
        if len(others := np.flatnonzero(zigzag != 0)):
            places, steps = torch.from_numpy(others), zigzag[others]
            difference = torch.from_numpy(((steps >> 1) ^ np.negative(steps & 1)).view(np.int16))
            served = (near[places].bfloat16().view(torch.int16) + difference).view(torch.bfloat16)
            near[places] = _nearest_in_view(near[places], served)
    return base


def _nearest_in_view(near: "Tensor", view: "Tensor") -> "Tensor":
    """The numbers nearest to `near` that round to a view; the view itself where that is not finite."""
    import torch

    # The ends of the interval that rounds to v: half a spacing below and above, without the ends where v is odd,
    # since ties go to the even one.
    bits = view.view(torch.int16).int() << 16
    odd, magnitude = (bits >> 16) & 1, bits & 0x7FFFFFFF
    low = (magnitude - _TIE + odd).clamp_(min=0).view(torch.float32)
    high = (magnitude + _TIE - odd).view(torch.float32)
    held = torch.minimum(torch.maximum(torch.where(bits < 0, -near, near), low), high)
    return torch.where(torch.isfinite(view), torch.copysign(held, view.float()), view.float())


def _add_update(base: "Tensor", r: "Tensor", out: "Tensor | None" = None) -> "Tensor":
    """base + r in fp32, without NaN, whose bits would be the machine's."""
    import torch

    near = torch.add(base, r.float(), out=out)  # two passes of one dtype each are faster than one of both
    if math.isfinite(float(near.sum())):
        return near
    return near.nan_to_num_(nan=0.0, posinf=math.inf, neginf=-math.inf)


def _bits(tensor: "Tensor") -> np.ndarray:
    """The entries' bit patterns as signed integers."""
    import torch

    patterns = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize]
    return tensor.detach().cpu().contiguous().view(patterns).reshape(-1).numpy()
