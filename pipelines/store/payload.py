"""What a snapshot writes: whole tensors, or their codes beside those of another snapshot (`codec`), as safetensors.

    master.safetensors   every tensor by its name: its bytes, or the bytes of its code
    bf16.safetensors     of updates: codes of the bf16 views, which they give exactly, by the same names

A tensor is coded where the other snapshot has one of its shape and dtype and the code is smaller.
"""

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.store.tensors import DTYPES, TensorRef, serialise, sha256

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, VIEWS = "master.safetensors", "bf16.safetensors"


@dataclass(frozen=True)
class Payload:
    """files: bytes by name. digest: SHA-256 of the tensors as they will be read, as one plain safetensors file.

    facts: by tensor, what its entry in the manifest says beside where it lies; views: the same of every view;
    precision: what the manifest says of all.
    """

    files: dict[str, bytes]
    digest: str
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)


def whole(tensors: "dict[str, Tensor]") -> Payload:
    """Every tensor as it is."""
    data = serialise(tensors)
    return Payload({WEIGHTS: data}, hashlib.sha256(data).hexdigest())


def beside(tensors: "dict[str, Tensor]", others: dict[str, TensorRef]) -> Payload:
    """Every tensor exactly, beside the other snapshot's."""
    from pipelines.store import codec

    codes = {}
    for name, other in _alike(tensors, others):
        code = codec.delta(tensors[name], other.read())
        if len(code) < tensors[name].nbytes:
            codes[name] = _plain(code)
    facts = {name: {"code": codec.DELTA} for name in codes}
    return Payload({WEIGHTS: serialise(tensors | codes)}, sha256(tensors), facts)


def updates(tensors: "dict[str, Tensor]", others: dict[str, TensorRef]) -> Payload:
    """Every fp32 tensor as its update in bf16 from the other snapshot's, its bf16 view exactly; others as they are.

    facts: error, ||w' - w||_F / ||w - base||_F of what is read, 0 where nothing moved.
    """
    import torch

    from pipelines.store import codec

    codes, views, kept, facts = {}, {}, dict(tensors), {}
    for name, other in _alike(tensors, others):
        tensor = tensors[name].detach().cpu()
        if tensor.dtype != torch.float32:
            continue
        base = other.read()
        code, view, found = codec.update(tensor, base)
        if len(code) + len(view) >= tensor.nbytes:
            continue
        kept[name], codes[name], views[name] = found, _plain(code), _plain(view)
        moved = float(torch.linalg.vector_norm(tensor - base, dtype=torch.float64))
        error = float(torch.linalg.vector_norm(kept[name] - tensor, dtype=torch.float64))
        facts[name] = {"code": codec.UPDATE, "error": error / moved if moved else 0.0}
    return Payload(
        files={WEIGHTS: serialise(tensors | codes), VIEWS: serialise(views)},
        digest=sha256(kept),
        facts=facts,
        views={"code": codec.DELTA},
        precision={"kept": "bf16-update", "bound": codec.BOUND},
    )


def dtype(tensor: "Tensor") -> str:
    """Safetensors' name of a tensor's dtype."""
    return DTYPES[str(tensor.dtype)]


def _alike(tensors: "dict[str, Tensor]", others: dict[str, TensorRef]) -> list[tuple[str, TensorRef]]:
    """The tensors of the other snapshot that a code can be beside."""
    found = [(name, others[name]) for name in sorted(tensors) if name in others]
    return [(name, ref) for name, ref in found if (ref.shape, ref.dtype) == (tensors[name].shape, dtype(tensors[name]))]


def _plain(code: bytes) -> "Tensor":
    import torch

    return torch.frombuffer(bytearray(code), dtype=torch.uint8)
