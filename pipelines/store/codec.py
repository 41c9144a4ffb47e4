"""Codes of a tensor beside a base of the same shape: a lossless one, and one of the update in bf16.

DELTA, lossless: differences of bits, so that what moved little is a small number. Floats of one sign are ordered as
their bits are, and a step of k ulp is 2 k or 2 k - 1.

    d = zigzag(bits(w) - bits(base) mod 2^n)                        n bits an entry; without a base it is zero

UPDATE, of fp32: r = RN_bf16(w - base), kept with the exponent in one byte (bits rotated left by one), beside
v = RN_bf16(w), kept exactly as DELTA beside RN_bf16(base). What comes back is

    w' = the number nearest to base + r that rounds to v            |w' - w| <= 2^-8 |w - base| + 2^-24 |w|

The bf16 view of w' is that of w, bit for bit, and holding to it makes no error larger: the numbers that round to v are
an interval, and w lies in it.
"""

from typing import TYPE_CHECKING

import numpy as np

from pipelines.store.planes import Planes, pack

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DELTA, UPDATE = "delta-planes-zstd/1", "update-bf16-planes-zstd/1"
BOUND = 2.0**-8  # of UPDATE: error of an entry over its |w - base|, where that is above the spacing of fp32 at w
_SIGNED = {2: np.int16, 4: np.int32, 8: np.int64}
_HALF = 0x8000  # half the spacing of bf16, in bits of fp32


def delta(tensor: "Tensor", base: "Tensor | None" = None) -> bytes:
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


def undelta(planes: Planes, dtype: "torch.dtype", begin: int, end: int, base: "Tensor | None" = None) -> "Tensor":
    """Entries begin..end of the tensor whose code this is. base: the same entries of its base, as `delta` had it.

    Errors: as `Planes.entries`.
    """
    import torch

    zigzag = planes.entries(begin, end)
    bits = ((zigzag >> 1) ^ (~(zigzag & 1) + 1)).view(_SIGNED[planes.width])
    if base is not None:
        bits = bits + _bits(base)
    return torch.from_numpy(bits).view(dtype)


def update(tensor: "Tensor", base: "Tensor") -> tuple[bytes, bytes]:
    """The codes of r and of v. Errors: ValueError where the tensor is not fp32, or as `delta`."""
    import torch

    if (tensor.dtype, base.dtype, base.shape) != (torch.float32, torch.float32, tensor.shape):
        raise ValueError(
            f"a {tensor.dtype} {tuple(tensor.shape)} has no update in bf16 from a {base.dtype} {tuple(base.shape)}; "
            "both are to be fp32"
        )
    w, b = (x.detach().cpu().contiguous().reshape(-1) for x in (tensor, base))

    def rotated(begin: int, end: int) -> np.ndarray:
        bits = _bits((w[begin:end] - b[begin:end]).bfloat16()).view(np.uint16)
        return (bits << 1) | (bits >> 15)

    return pack(rotated, w.numel(), 2), delta(w.bfloat16(), b.bfloat16())


def apply(planes: Planes, begin: int, end: int, base: "Tensor", view: "Tensor") -> "Tensor":
    """Entries begin..end of w'. base, view: the same entries of the base (fp32) and of v (bf16), flat."""
    import torch

    rotated = planes.entries(begin, end)
    r = torch.from_numpy(((rotated >> 1) | (rotated << 15)).view(np.int16)).view(torch.bfloat16)
    near = base + r.float()
    # The ends of the interval that rounds to v: half a spacing below and above, without the ends where v is odd,
    # since ties go to the even one.
    bits = view.view(torch.int16).int() << 16
    odd, magnitude = (bits >> 16) & 1, bits & 0x7FFFFFFF
    low = (magnitude - _HALF + odd).clamp_(min=0).view(torch.float32)
    high = (magnitude + _HALF - odd).view(torch.float32)
    found = torch.minimum(torch.maximum(torch.where(bits < 0, -near, near), low), high)
    served = view.float()
    found = torch.copysign(found, served)
    return torch.where(torch.isfinite(served) & ~torch.isnan(near), found, served)


def _bits(tensor: "Tensor") -> np.ndarray:
    """The entries' bit patterns as signed integers."""
    import torch

    patterns = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize]
    return tensor.detach().cpu().contiguous().view(patterns).reshape(-1).numpy()
