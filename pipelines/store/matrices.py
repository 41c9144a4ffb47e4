"""Splits a checkpoint's fused tensors into single weights [out, in], under the names of unfused layouts.

    self_attn.qkv_proj          rows q | k | v                                     Phi-3
    mlp.gate_up_proj            rows gate | up                                     Phi-3, GLM-4
    h.<i>.attn.c_attn           [in, out], columns q | k | v                       GPT-2, where all are [in, out]
    attention.query_key_value   rows q, k, v of the first head, then of the next   GPT-NeoX
    experts.gate_up_proj        [expert, out, in], rows gate | up                  Qwen3-MoE, Mixtral
                                [expert, in, out], columns gate | up               Llama 4
                                [expert, in, out], columns gate, up in turn        GPT-OSS
    experts.down_proj           [expert, out, in] or [expert, in, out]             as its gate_up_proj

Biases of fused projections are split in the same way.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from opd_ops.roles import role
from pipelines.store.checkpoints import Checkpoint
from pipelines.store.matrix import MatrixRef
from pipelines.store.names import repr_short
from pipelines.store.tensors import TensorRef

_BLOCK = re.compile(r"(?:^|\.)h\.(\d+)\.")
_ROLES = {
    r"attention\.dense": "o",
    r"mlp\.dense_h_to_4h": "up",
    r"mlp\.dense_4h_to_h": "down",
    r"attn\.c_proj": "o",
    r"mlp\.c_fc": "up",
    r"mlp\.c_proj": "down",
    r"experts\.\d+\.w1": "gate",
    r"experts\.\d+\.w3": "up",
    r"experts\.\d+\.w2": "down",
}
_CONV1D = re.compile(r"(?:^|\.)h\.\d+\.(?:attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight$")
_C_ATTN = re.compile(r"(?P<stem>(?:.*\.)?h\.\d+\.attn\.)c_attn\.(?P<kind>weight|bias)")
_QKV = re.compile(r"(?P<stem>(?:.*\.)?self_attn\.)qkv_proj\.(?P<kind>weight|bias)")
_QUERY_KEY_VALUE = re.compile(r"(?P<stem>(?:.*\.)?attention\.)query_key_value\.(?P<kind>weight|bias)")
_GATE_UP = re.compile(r"(?P<stem>(?:.*\.)?)gate_up_proj\.(?P<kind>weight|bias)")
_EXPERTS = re.compile(r"(?P<stem>(?:.*\.)?experts\.)(?P<part>gate_up|down)_proj(?:\.weight)?")
_EXPERT_SIZES = ("moe_intermediate_size", "intermediate_size", "expert_dim")
REMEDY = "bring the config.json it was saved with"

Ranges = tuple[tuple[int, int], ...]


def matrices(checkpoint: Checkpoint) -> dict[str, MatrixRef]:
    """All weights of a checkpoint by name, in the order they are stored.

    Errors: ValueError with the tensor's name if a fused tensor does not fit the configuration, or if two tensors give
    a weight of the same name.
    """
    layout = _Layout(checkpoint)
    weights: dict[str, MatrixRef] = {}
    for source, ref in checkpoint.tensors.items():
        for matrix in layout.parts(source, ref):
            if matrix.name in weights:
                raise ValueError(
                    f"tensors {weights[matrix.name].source} and {source} of {checkpoint} are both {matrix.name}; "
                    "save the model with one of them"
                )
            weights[matrix.name] = matrix
    return weights


class _Layout:
    """How one checkpoint stores its weights."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        config = checkpoint.config or {}
        inner = config.get("text_config")
        self.config: dict[str, Any] = config | (inner if isinstance(inner, dict) else {})
        self.conv1d = self._is_conv1d()
        self.splits: list[tuple[re.Pattern[str], int, Callable[[re.Match[str], TensorRef], Iterator[MatrixRef]]]] = [
            (_QKV, 2, self._qkv),
            (_GATE_UP, 2, self._gate_up),
            (_QUERY_KEY_VALUE, 2, self._per_head),
            (_EXPERTS, 3, self._experts),
        ]
        if self.conv1d:
            self.splits.append((_C_ATTN, 2, self._c_attn))

    def parts(self, source: str, ref: TensorRef) -> Iterator[MatrixRef]:
        for pattern, dimensions, split in self.splits:
            match = pattern.fullmatch(source)
            if match and len(ref.shape) == (1 if source.endswith(".bias") else dimensions):
                yield from split(match, ref)
                return
        layer, part = _role(source)
        transposed = self.conv1d and len(ref.shape) == 2 and bool(_CONV1D.search(source))
        yield MatrixRef(
            name=source.removesuffix(".weight"),
            source=source,
            layer=layer,
            role=part,
            ref=ref,
            shape=ref.shape[::-1] if transposed else ref.shape,
            transposed=transposed,
        )

    def _is_conv1d(self) -> bool:
        """Whether this is GPT-2. Other models use its names for weights that are stored as [out, in]."""
        if kind := self.config.get("model_type"):
            return kind == "gpt2"
        shapes = [ref.shape for name, ref in self.checkpoint.tensors.items() if _C_ATTN.fullmatch(name)]
        return any(len(shape) == 2 and shape[1] == 3 * shape[0] for shape in shapes)

    def _qkv(self, match: re.Match[str], ref: TensorRef) -> Iterator[MatrixRef]:
        heads = self._setting("num_attention_heads", match[0])
        shared = self._setting("num_key_value_heads", match[0], heads)
        if self.config.get("head_dim"):
            size = self._setting("head_dim", match[0])
        else:
            size = self._setting("hidden_size", match[0]) // heads
        q, k = heads * size, shared * size
        if ref.shape[0] != q + 2 * k:
            raise self._misfit(match[0], ref, f"{heads} heads and {shared} key-value heads of {size}, {q + 2 * k} rows")
        yield from _by_rows(match, ref, {"q": ((0, q),), "k": ((q, q + k),), "v": ((q + k, q + 2 * k),)})

    def _gate_up(self, match: re.Match[str], ref: TensorRef) -> Iterator[MatrixRef]:
        half = ref.shape[0] // 2
        if ref.shape[0] != 2 * half:
            raise ValueError(
                f"fused tensor {match[0]} of {self.checkpoint} has {ref.shape[0]} rows, an odd number; "
                "save the model with gate_proj and up_proj apart"
            )
        yield from _by_rows(match, ref, {"gate": ((0, half),), "up": ((half, 2 * half),)})

    def _per_head(self, match: re.Match[str], ref: TensorRef) -> Iterator[MatrixRef]:
        heads = self._setting("num_attention_heads", match[0])
        size = ref.shape[0] // (3 * heads)
        if ref.shape[0] != 3 * heads * size:
            raise self._misfit(match[0], ref, f"{heads} heads of q, k and v, a multiple of {3 * heads} rows")
        starts = [tuple((3 * head + part) * size for head in range(heads)) for part in range(3)]
        rows = {part: tuple((at, at + size) for at in starts[i]) for i, part in enumerate("qkv")}
        yield from _by_rows(match, ref, rows)

    def _c_attn(self, match: re.Match[str], ref: TensorRef) -> Iterator[MatrixRef]:
        size = ref.shape[-1] // 3
        if ref.shape[-1] != 3 * size:
            raise self._misfit(match[0], ref, "GPT-2, 3 x n columns")
        ranges = {part: (i * size, (i + 1) * size) for i, part in enumerate("qkv")}
        if match["kind"] == "bias":
            yield from _by_rows(match, ref, {part: (span,) for part, span in ranges.items()})
            return
        for part, span in ranges.items():
            yield MatrixRef(
                name=f"{match['stem']}{part}_proj",
                source=match[0],
                layer=_role(match[0])[0],
                role=part,
                ref=ref,
                shape=(size, ref.shape[0]),
                columns=span,
                transposed=True,
            )

    def _experts(self, match: re.Match[str], ref: TensorRef) -> Iterator[MatrixRef]:
        transposed, hidden, inner = self._convention(match)
        layer, _ = _role(match[0])
        stride = 2 if transposed and match["part"] == "gate_up" and self._alternates(match["stem"]) else 1
        spans: dict[str, tuple[int, int] | None] = {"down": None}
        if match["part"] == "gate_up":
            spans = {"gate": (0, inner), "up": (inner, 2 * inner)}
            if stride == 2:
                spans = {"gate": (0, 2 * inner), "up": (1, 2 * inner)}
        for expert in range(ref.shape[0]):
            for part, span in spans.items():
                yield MatrixRef(
                    name=f"{match['stem']}{expert}.{part}_proj",
                    source=match[0],
                    layer=layer,
                    role=part,
                    ref=ref,
                    shape=(hidden, inner) if part == "down" else (inner, hidden),
                    rows=(span,) if span and not transposed else None,
                    columns=span if transposed else None,
                    stride=stride,
                    transposed=transposed,
                    index=expert,
                )

    def _convention(self, match: re.Match[str]) -> tuple[bool, int, int]:
        """(stored as [expert, in, out], hidden size, intermediate size), deduced from both stacks of the experts."""
        if not self.config:
            raise self._without_config(match[0])
        hidden = self.config.get("hidden_size")
        inner = [self.config[key] for key in _EXPERT_SIZES if self.config.get(key)]
        stacks = {part: self._stack(match["stem"], part) for part in ("gate_up", "down")}
        fitting = []
        for transposed in (True, False):
            sizes = {_sizes(part, shape, transposed) for part, shape in stacks.items() if shape}
            h, i = sizes.pop()
            if not sizes and i and (hidden or h) == h and (not inner or i in inner):
                fitting.append((transposed, h, i))
        if len(fitting) != 1:
            how = "both as [expert, in, out] and as [expert, out, in]" if fitting else "in no way"
            raise ValueError(
                f"expert stack {match[0]} of {self.checkpoint} has shape {self.checkpoint.tensors[match[0]].shape}, "
                f"which fits hidden size {repr_short(hidden)} and intermediate size {repr_short(inner)} {how}; {REMEDY}"
            )
        return fitting[0]

    def _stack(self, stem: str, part: str) -> tuple[int, ...] | None:
        refs = (self.checkpoint.tensors.get(f"{stem}{part}_proj{end}") for end in ("", ".weight"))
        return next((ref.shape for ref in refs if ref and len(ref.shape) == 3), None)

    def _alternates(self, stem: str) -> bool:
        """Whether gate and up columns alternate, as in GPT-OSS. Without a model type, only GPT-OSS has biases here."""
        kind = self.config.get("model_type")
        return kind == "gpt_oss" or (kind is None and f"{stem}gate_up_proj_bias" in self.checkpoint.tensors)

    def _setting(self, key: str, source: str, default: int | None = None) -> int:
        if not self.config:
            raise self._without_config(source)
        value = default if self.config.get(key) is None else self.config[key]
        if type(value) is not int or value < 1:
            raise ValueError(
                f"fused tensor {source} of {self.checkpoint} cannot be split: "
                f"its config has {key} {repr_short(value)}; {REMEDY}"
            )
        return value

    def _without_config(self, source: str) -> ValueError:
        return ValueError(f"fused tensor {source} of {self.checkpoint} cannot be split without its config; {REMEDY}")

    def _misfit(self, source: str, ref: TensorRef, expected: str) -> ValueError:
        return ValueError(
            f"fused tensor {source} of {self.checkpoint} has shape {ref.shape}, "
            f"and its config says {expected}; {REMEDY}"
        )


def _sizes(part: str, shape: tuple[int, ...], transposed: bool) -> tuple[int, int]:
    """Hidden and intermediate size of a stack under a convention; intermediate size 0 if the shape does not fit."""
    outer, inner = shape[:0:-1] if transposed else shape[1:]
    return (outer, inner) if part == "down" else (inner, 0 if outer % 2 else outer // 2)


def _by_rows(match: re.Match[str], ref: TensorRef, rows: dict[str, Ranges]) -> Iterator[MatrixRef]:
    bias = match["kind"] == "bias"
    for part, ranges in rows.items():
        yield MatrixRef(
            name=f"{match['stem']}{part}_proj{'.bias' if bias else ''}",
            source=match[0],
            layer=_role(match[0])[0],
            role="bias" if bias else part,
            ref=ref,
            shape=(sum(end - begin for begin, end in ranges), *ref.shape[1:]),
            rows=ranges,
        )


def _role(name: str) -> tuple[int | None, str]:
    """As `role`, extended to the names of GPT-2, GPT-NeoX and Mixtral."""
    layer, part = role(name)
    if match := _BLOCK.search(name):
        layer = int(match[1])
    if layer is not None:
        part = next((known for ends, known in _ROLES.items() if re.search(rf"\.{ends}\.weight$", name)), part)
    return layer, part
