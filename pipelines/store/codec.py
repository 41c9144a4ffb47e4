"""A lossless code of a tensor beside a base of the same shape and dtype: differences of bits, byte by byte.

    d = zigzag(bits(w) - bits(base) mod 2^n)       n bits an entry; a float that moved little has a small d
    plane i = byte i of every d                     compressed by itself; kept as it is where that does not shrink it

    code = magic, number of planes, bytes of each plane (8-byte little-endian integers), the planes

Floats of one sign are ordered as their bits are, so a step of k ulp is d = 2 k or 2 k - 1; upper planes are almost all
zero, lower ones almost noise, and zstd finds both out at its level 1. Without a base it is zero. Not coded: which base
it was, which whoever keeps the code keeps, too.
"""

import math
import struct
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NAME = "delta-planes-zstd/1"
MAGIC = b"opdc"
LEVEL = 1
_BITS = {2: np.int16, 4: np.int32, 8: np.int64}
_UNSIGNED = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def encode(tensor: "Tensor", base: "Tensor | None" = None) -> bytes:
    """The code of `tensor` [any shape; 2, 4 or 8 bytes an entry]; equal inputs, equal bytes.

    Errors: ValueError for a base of another shape or dtype.
    """
    _require_alike(tensor, base)
    bits = _bits(tensor)
    d = bits if base is None else bits - _bits(base)  # wraps around
    width = d.itemsize
    zigzag = (d << 1) ^ (d >> (8 * width - 1))
    codec, planes = pa.Codec("zstd", compression_level=LEVEL), []
    for plane in zigzag.view(np.uint8).reshape(-1, width).T:
        plain = np.ascontiguousarray(plane)
        packed = codec.compress(plain, asbytes=True)
        planes.append(packed if len(packed) < plain.nbytes else plain.tobytes())
    return b"".join([MAGIC, struct.pack(f"<{1 + width}Q", width, *map(len, planes)), *planes])


def decode(code: bytes, dtype: "torch.dtype", shape: tuple[int, ...], base: "Tensor | None" = None) -> "Tensor":
    """The tensor whose code beside `base` this is.

    Nothing is allocated before the lengths in the code agree with `shape`. Errors: ValueError where they do not, where
    a plane does not decompress to them, and for what is no code.
    """
    import torch

    width, entries = dtype.itemsize, math.prod(shape)
    head = len(MAGIC) + 8 * (1 + width)
    if len(code) < head or code[: len(MAGIC)] != MAGIC:
        raise ValueError(f"no {NAME}: it begins with {code[: len(MAGIC)]!r}")
    planes, *lengths = struct.unpack_from(f"<{1 + width}Q", code, len(MAGIC))
    if planes != width or head + sum(lengths) != len(code) or max(lengths) > entries:
        raise ValueError(
            f"a {NAME} of {planes} planes of {lengths} bytes, for {entries} entries of {width}: {len(code)} bytes"
        )
    codec, at = pa.Codec("zstd"), head
    zigzag = np.empty((entries, width), np.uint8)
    for index, length in enumerate(lengths):
        packed = memoryview(code)[at : at + length]
        at += length
        try:
            zigzag[:, index] = np.frombuffer(
                packed if length == entries else codec.decompress(packed, entries), np.uint8
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"plane {index} of a {NAME} does not decompress: {error}") from None
    unsigned = zigzag.reshape(-1).view(_UNSIGNED[width])
    bits = ((unsigned >> 1) ^ (~(unsigned & 1) + 1)).view(_BITS[width])
    if base is not None:
        bits = bits + _bits(base)
    return torch.from_numpy(bits.copy() if not bits.flags.writeable else bits).view(dtype).reshape(shape)


def _bits(tensor: "Tensor") -> np.ndarray:
    """The entries' bit patterns as signed integers."""
    import torch

    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize]
    return tensor.detach().cpu().contiguous().view(whole).reshape(-1).numpy()


def _require_alike(tensor: "Tensor", base: "Tensor | None") -> None:
    if base is not None and (base.dtype, base.shape) != (tensor.dtype, tensor.shape):
        raise ValueError(
            f"a {tensor.dtype} {tuple(tensor.shape)} has no difference from a {base.dtype} {tuple(base.shape)}"
        )
