"""The files of a snapshot: plain tensors, or codes relative to another snapshot's tensors, as safetensors.

    master.safetensors   every tensor by name: its bytes, or the bytes of its code (`codec`)
    bf16.safetensors     only for bf16 updates: the codes of the exact bf16 views, by the same names

A tensor is encoded if the other snapshot has a tensor of its name, shape and dtype and the code is smaller.
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
    """files: contents by name. digest: SHA-256 of the decoded tensors as one plain safetensors file.

    facts: additional fields of each tensor's manifest entry, by tensor. views: additional fields of every view's entry.
    precision: additional fields of the manifest.
    """

    files: dict[str, Pieces]
    digest: str
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)


def encode_plain(tensors: "dict[str, Tensor]") -> Payload:
    """All tensors as plain bytes."""
    file = Pieces.from_tensors(tensors)
    return Payload({WEIGHTS: file}, file.sha256)


def encode_whole(tensors: "dict[str, Tensor]") -> Payload:
    """All tensors without a base snapshot; an fp32 tensor is stored as bf16 if that is exact."""
    from pipelines.store import codec

    halves = {name: half for name, tensor in tensors.items() if (half := codec.as_exact_bf16(tensor)) is not None}
    if not halves:
        return encode_plain(tensors)
    return Payload(
        {WEIGHTS: Pieces.from_tensors(tensors | halves)}, sha256(tensors), {name: {"code": HALF} for name in halves}
    )


def encode_deltas(tensors: "dict[str, Tensor]", others: dict[str, TensorRef]) -> Payload:
    """All tensors, losslessly, as differences to the other snapshot's tensors."""
    from pipelines.store import codec

    codes = {}
    for name, other in _matching_bases(tensors, others):
        code = codec.encode_delta(tensors[name], other.read())
        if len(code) < tensors[name].nbytes:
            codes[name] = _plain(code)
    facts = {name: {"code": codec.DELTA} for name in codes}
    return Payload({WEIGHTS: Pieces.from_tensors(tensors | codes)}, sha256(tensors), facts)


def encode_updates(tensors: "dict[str, Tensor]", others: dict[str, TensorRef]) -> Payload:
    """fp32 tensors as bf16 updates from the other snapshot's, with exact bf16 views; other tensors as plain bytes.

    facts: error = ||w' - w||_F / ||w - base||_F of the decoded w', 0 if nothing moved.
    """
    import torch

    from pipelines.store import codec

    codes, views, decoded, facts = {}, {}, dict(tensors), {}
    for name, other in _matching_bases(tensors, others):
        tensor = tensors[name].detach().cpu()
        if tensor.dtype != torch.float32:
            continue
        base = other.read()
        code, view, approximate = codec.encode_update(tensor, base)
        if len(code) + len(view) >= tensor.nbytes:
            continue
        decoded[name], codes[name], views[name] = approximate, _plain(code), _plain(view)
        moved, error = _distance(tensor, base), _distance(approximate, tensor)
        facts[name] = {"code": codec.UPDATE, "error": error / moved if moved else 0.0}
    return Payload(
        files={WEIGHTS: Pieces.from_tensors(tensors | codes), VIEWS: Pieces.from_tensors(views)},
        digest=sha256(decoded),
        facts=facts,
        views={"code": codec.DELTA},
        precision={"kept": "bf16-update", "bound": codec.BOUND},
    )


def _distance(left: "Tensor", right: "Tensor") -> float:
    """||left - right||_F; differences in fp32, squares summed in float64."""
    import torch

    pieces = (x.double() for x in torch.sub(left, right).reshape(-1).split(PIECE))
    return math.sqrt(sum(float(torch.dot(x, x)) for x in pieces))


def dtype_name(tensor: "Tensor") -> str:
    """Safetensors' name of a tensor's dtype."""
    return DTYPES[str(tensor.dtype)]


def _matching_bases(tensors: "dict[str, Tensor]", others: dict[str, TensorRef]) -> list[tuple[str, TensorRef]]:
    """The other snapshot's tensors whose name, shape and dtype match."""
    return [
        (name, others[name])
        for name, tensor in sorted(tensors.items())
        if name in others and (others[name].shape, others[name].dtype) == (tensor.shape, dtype_name(tensor))
    ]


def _plain(code: bytes) -> "Tensor":
    import torch

    return torch.frombuffer(bytearray(code), dtype=torch.uint8)
