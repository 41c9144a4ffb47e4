"""What a snapshot writes: tensors by themselves, or their codes beside those of another snapshot, as safetensors.

    master.safetensors   every tensor by its name: its bytes, or the bytes of its code (`codec`)
    bf16.safetensors     of updates: codes of the bf16 views, which they give exactly, by the same names

A tensor is coded where the other snapshot has one of its shape and dtype and the code is smaller.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.store.tensors import DTYPES, HALF, Pieces, TensorRef, sha256

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 16  # entries squared at a time, in the cache
WEIGHTS, VIEWS = "master.safetensors", "bf16.safetensors"


@dataclass(frozen=True)
class Payload:
    """files: contents by name. digest: SHA-256 of the tensors as they will be read, as one plain safetensors file.

    facts: by tensor, what its entry in the manifest says beside where it lies; views: the same of every view;
    precision: what the manifest says of all.
    """

    files: dict[str, Pieces]
    digest: str
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)


def encode_plain(tensors: "dict[str, Tensor]") -> Payload:
    """Every tensor by itself, as it is."""
    file = Pieces.from_tensors(tensors)
    return Payload({WEIGHTS: file}, file.sha256)


def encode_whole(tensors: "dict[str, Tensor]") -> Payload:
    """Every tensor by itself, as bf16 where that is exact."""
    from pipelines.store import codec

    halves = {name: found for name, tensor in tensors.items() if (found := codec.as_exact_bf16(tensor)) is not None}
    if not halves:
        return encode_plain(tensors)
    return Payload(
        {WEIGHTS: Pieces.from_tensors(tensors | halves)}, sha256(tensors), {name: {"code": HALF} for name in halves}
    )


def encode_deltas(tensors: "dict[str, Tensor]", others: dict[str, TensorRef]) -> Payload:
    """Every tensor exactly, beside the other snapshot's."""
    from pipelines.store import codec

    codes = {}
    for name, other in _matching_bases(tensors, others):
        code = codec.encode_delta(tensors[name], other.read())
        if len(code) < tensors[name].nbytes:
            codes[name] = _plain(code)
    facts = {name: {"code": codec.DELTA} for name in codes}
    return Payload({WEIGHTS: Pieces.from_tensors(tensors | codes)}, sha256(tensors), facts)


def encode_updates(tensors: "dict[str, Tensor]", others: dict[str, TensorRef]) -> Payload:
    """Every fp32 tensor as its update in bf16 from the other snapshot's, its bf16 view exactly; others as they are.

    facts: error, ||w' - w||_F / ||w - base||_F of what is read, 0 where nothing moved.
    """
    import torch

    from pipelines.store import codec

    codes, views, kept, facts = {}, {}, dict(tensors), {}
    for name, other in _matching_bases(tensors, others):
        tensor = tensors[name].detach().cpu()
        if tensor.dtype != torch.float32:
            continue
        base = other.read()
        code, view, found = codec.encode_update(tensor, base)
        if len(code) + len(view) >= tensor.nbytes:
            continue
        kept[name], codes[name], views[name] = found, _plain(code), _plain(view)
        moved, error = _distance(tensor, base), _distance(found, tensor)
        facts[name] = {"code": codec.UPDATE, "error": error / moved if moved else 0.0}
    return Payload(
        files={WEIGHTS: Pieces.from_tensors(tensors | codes), VIEWS: Pieces.from_tensors(views)},
        digest=sha256(kept),
        facts=facts,
        views={"code": codec.DELTA},
        precision={"kept": "bf16-update", "bound": codec.BOUND},
    )


def _distance(left: "Tensor", right: "Tensor") -> float:
    """||left - right||_F of differences in fp32, summed in float64."""
    import torch

    pieces = (x.double() for x in torch.sub(left, right).reshape(-1).split(PIECE))
    return math.sqrt(sum(float(torch.dot(x, x)) for x in pieces))


def dtype_name(tensor: "Tensor") -> str:
    """Safetensors' name of a tensor's dtype."""
    return DTYPES[str(tensor.dtype)]


def _matching_bases(tensors: "dict[str, Tensor]", others: dict[str, TensorRef]) -> list[tuple[str, TensorRef]]:
    """The tensors of the other snapshot that a code can be beside."""
    found = [(name, others[name]) for name in sorted(tensors) if name in others]
    return [
        (name, ref) for name, ref in found if (ref.shape, ref.dtype) == (tensors[name].shape, dtype_name(tensors[name]))
    ]


def _plain(code: bytes) -> "Tensor":
    import torch

    return torch.frombuffer(bytearray(code), dtype=torch.uint8)
