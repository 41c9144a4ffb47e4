"""Reads safetensors by byte range: headers, references to single tensors, and single tensors.

A reference is (store, key, byte range, dtype, shape), so that a remote task reads only the tensor that it measures.
torch is imported only where bytes become a tensor, so that reading headers starts fast.
"""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipelines.store.json_object import is_count, parse_json
from pipelines.store.names import LONGEST, has_control_characters, repr_short
from pipelines.store.objects import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from pipelines.store.byteplanes import BytePlanes

# By torch's dtype names as strings, so that torch need not be imported.
DTYPES = {"torch.bfloat16": "BF16", "torch.float16": "F16", "torch.float32": "F32", "torch.float64": "F64"}
ITEMSIZE = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}  # bytes, by safetensors' names of the float dtypes
ORDER = ["F64", "F32", "BF16", "F16", "U8"]  # dtype order of tensors in a file; within a dtype they are sorted by name
HALF = "bf16/1"  # code of an fp32 tensor stored as bf16 without loss (`codec.as_exact_bf16`)
MAX_HEADER = 100 * 2**20  # bytes; the limit of the safetensors format
DIMENSIONS = 64  # of a tensor; the limit of torch
SIDE_BY_SIDE = 4  # tensors read concurrently, so that requests overlap with decoding


@dataclass(frozen=True)
class TensorRef:
    """One tensor of one safetensors file. begin, end: absolute byte offsets in the file.

    code: the encoding of its bytes (`codec`), None if they are plain. base: the tensor that the code is relative to.
    view: for an update, the code of its bf16 view. dtype, shape: of the decoded tensor. sha256: of the whole file, from
    the manifest; empty without a manifest.
    """

    store: Store
    key: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    code: str | None = None
    base: "TensorRef | None" = None
    view: "TensorRef | None" = None
    sha256: str = ""

    def read(self) -> "Tensor":
        """The decoded tensor. Errors: ValueError with file and tensor if bytes are missing or the code is invalid."""
        return self.entries(0, math.prod(self.shape)).reshape(self.shape)

    def entries(self, begin: int, end: int) -> "Tensor":
        """Entries begin..end, flat. Reads only these entries, or their chunks (`byteplanes`). Errors: as `read`."""
        import torch

        dtypes = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
        dtype, size = dtypes[self.dtype], ITEMSIZE[self.dtype]
        if self.code is None:
            data = self._bytes(begin * size, end * size)
            return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
        if self.code == HALF:
            return replace(self, code=None, dtype="BF16").entries(begin, end).float()
        from pipelines.store import codec
        from pipelines.store.byteplanes import NoCode

        if begin == 0 and end == math.prod(self.shape):
            data = self._bytes(0, self.end - self.begin)  # in one request
            planes = self._planes(lambda first, last: data[first:last])
        else:
            planes = self._planes(self._bytes)
        base = None if self.base is None else self.base.entries(begin, end)
        try:
            if self.code == codec.DELTA:
                return codec.decode_delta(planes, dtype, begin, end, base)
            if self.code == codec.UPDATE and base is not None and self.view is not None:
                return codec.apply_update(planes, self.view._planes(self.view._bytes), begin, end, base)
        except NoCode as error:
            raise ValueError(f"{self.key}: tensor {self.name} is {error}") from None
        raise ValueError(f"{self.key}: tensor {self.name} has the code {self.code!r}, which this version does not read")

    def _planes(self, read: "Callable[[int, int], bytes]") -> "BytePlanes":
        from pipelines.store import codec
        from pipelines.store.byteplanes import BytePlanes

        width = 2 if self.code == codec.UPDATE else ITEMSIZE[self.dtype]
        return BytePlanes(read, self.end - self.begin, math.prod(self.shape), width)

    def _bytes(self, begin: int, end: int) -> bytes:
        """Bytes begin..end, relative to the tensor's own range. Errors: ValueError if the file is truncated."""
        if begin == end:  # S3 has no empty range
            return b""
        data = self.store.read(self.key, self.begin + begin, self.begin + end)
        if len(data) != end - begin:
            raise ValueError(f"{self.key} is truncated: tensor {self.name} has {len(data)} of {end - begin} bytes")
        return data


@dataclass(frozen=True)
class Header:
    """The header of one safetensors file. tensors: all dtypes. size: bytes of the file. data: the header's bytes."""

    tensors: dict[str, TensorRef]
    size: int
    data: bytes


def read(refs: Mapping[str, TensorRef]) -> "dict[str, Tensor]":
    """Tensors by name, read concurrently. Errors: the first error of `TensorRef.read`."""
    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="tensors") as pool:
        return dict(zip(refs, pool.map(TensorRef.read, refs.values()), strict=True))


def list_tensors(store: Store, key: str) -> dict[str, TensorRef]:
    """References to all float tensors of a safetensors file, by name.

    Errors: ValueError with the file (and tensor) if the file is truncated, of another format or inconsistent.
    """
    return {name: ref for name, ref in read_header(store, key).tensors.items() if ref.dtype in ITEMSIZE}


def read_header(store: Store, key: str) -> Header:
    """The whole header, including tensors of dtypes that are not read here. Errors: as `list_tensors`."""
    size = store.size(key)
    foreign = f"{store.uri}/{key} is not a safetensors file"
    if size < 8:
        raise ValueError(f"{foreign} ({size} bytes); pickled .bin and .pt weights are not read, convert them first")
    (length,) = struct.unpack("<Q", store.read(key, 0, 8))
    if length > min(MAX_HEADER, size - 8):
        raise ValueError(f"{foreign} or is truncated: its header claims {length} of {size} bytes")
    data = store.read(key, 8, 8 + length)
    try:
        raw = parse_json(data)
        if not isinstance(raw, dict):
            raise ValueError(f"its header is {repr_short(raw)}, and no JSON object")
        entries = {name: entry for name, entry in raw.items() if name != "__metadata__"}
        refs = {name: _reference(store, key, name, entry, 8 + length) for name, entry in entries.items()}
        _require_apart(refs)
    except ValueError as error:
        raise ValueError(f"{foreign}: {error}") from None
    for ref in refs.values():
        if ref.end > size:
            raise ValueError(f"{store.uri}/{key} is truncated: tensor {ref.name} ends at byte {ref.end} of {size}")
    return Header(refs, size, data)


def _reference(store: Store, key: str, name: str, entry: Any, origin: int) -> TensorRef:
    if not name or len(name) > LONGEST or has_control_characters(name):
        raise ValueError(f"the tensor name {repr_short(name)} is empty, too long or has control characters")
    try:
        (begin, end), shape, dtype = entry["data_offsets"], tuple(entry["shape"]), entry["dtype"]
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"tensor {name} lacks dtype, shape or data_offsets: {repr_short(entry)}") from None
    sizes = is_count(begin) and is_count(end) and len(shape) <= DIMENSIONS and all(map(is_count, shape))
    if not sizes or begin > end or not isinstance(dtype, str):
        raise ValueError(
            f"tensor {name} has offsets {repr_short(begin)}..{repr_short(end)} and shape {repr_short(shape)}"
        )
    if dtype in ITEMSIZE and end - begin != math.prod(shape) * ITEMSIZE[dtype]:
        raise ValueError(f"tensor {name} of shape {shape} and dtype {dtype} spans {end - begin} bytes")
    dtype = dtype if dtype in ITEMSIZE else repr_short(dtype)[1:-1]
    return TensorRef(store, key, name, dtype, shape, origin + begin, origin + end)


def _require_apart(refs: dict[str, TensorRef]) -> None:
    """Errors: ValueError if two tensors overlap partly. Equal ranges are allowed: some files tie weights that way."""
    before: TensorRef | None = None
    for ref in sorted(refs.values(), key=lambda ref: (ref.begin, ref.end)):
        if before and ref.begin < before.end and (ref.begin, ref.end) != (before.begin, before.end):
            raise ValueError(f"tensors {before.name} and {ref.name} overlap")
        before = ref if ref.begin < ref.end else before


def serialise(tensors: dict[str, "Tensor"]) -> bytes:
    """A safetensors file; equal tensors give equal bytes."""
    from safetensors.torch import save

    return save({name: tensors[name].contiguous() for name in sorted(tensors)})


def sha256(tensors: dict[str, "Tensor"]) -> str:
    """SHA-256 of `serialise(tensors)`, computed without building the file."""
    return Pieces.from_tensors(tensors).sha256


@dataclass(frozen=True)
class Pieces:
    """The file `serialise(tensors)` as its header and views of the tensors' memory, without a copy. Dtypes of ORDER."""

    buffers: list[memoryview]
    size: int  # bytes

    @classmethod
    def from_tensors(cls, tensors: dict[str, "Tensor"]) -> "Pieces":
        import torch

        dtypes = {name: DTYPES.get(str(tensor.dtype), "U8") for name, tensor in tensors.items()}
        names = sorted(tensors, key=lambda name: (ORDER.index(dtypes[name]), name))
        entries, end = {}, 0
        for name in names:
            begin, end = end, end + tensors[name].nbytes
            entries[name] = {"dtype": dtypes[name], "shape": list(tensors[name].shape), "data_offsets": [begin, end]}
        head = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 8)
        # A tensor with one entry counts as contiguous with any stride, but a view as bytes needs stride 1.
        whole = (tensors[name].detach().cpu().contiguous() for name in names)
        flat = (tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8) for tensor in whole)
        buffers = [memoryview(struct.pack("<Q", len(head)) + head), *(tensor.numpy().data for tensor in flat)]
        return cls(buffers, 8 + len(head) + end)

    @cached_property
    def sha256(self) -> str:
        total = hashlib.sha256()
        for buffer in self.buffers:
            total.update(buffer)
        return total.hexdigest()
