"""The decoding step of the Llama, Qwen2 and Qwen3 families, with a KV cache, on the model's own weights.

It computes what the model's own forward does, up to float rounding, with less overhead: keys and values go to
preallocated columns of the KV cache; query, key and value (and gate and up) are one product each where their weights
are small enough to be copied side by side; and the last layer computes the last position only. `supports` refuses any
other model or setting, which is sampled with the model's own forward (`model_decoding`).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
ROPES = ("default", "linear", "llama3")  # angles that depend on the position alone
FUSE = 2**26  # bytes of layers whose weights are copied side by side; past it the copies cost more than they save

Linear = tuple[Tensor, Tensor | None]  # weight [out, in], bias [out]


def supports(config: PretrainedConfig) -> bool:
    """Whether this decoder knows everything that `config` asks for."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in FAMILIES
        and getattr(config, "hidden_act", None) == "silu"
        and rope.get("rope_type") in ROPES
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and getattr(config, "sliding_window", None) is None
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and getattr(config, "pretraining_tp", None) in (None, 1)
        and getattr(config, "quantization_config", None) is None
    )


def is_plain(model: PreTrainedModel) -> bool:
    """Whether `model` has a supported configuration and no adapters, hooks or layers on several devices."""
    return (
        supports(model.config)
        and type(model).__name__ == FAMILIES[model.config.model_type]
        and not hasattr(model, "hf_device_map")
        and len({(p.dtype, p.device) for p in model.parameters()}) == 1
        and all(
            type(module) is nn.Linear and not module._forward_hooks and not module._forward_pre_hooks
            for name, module in model.named_modules()
            if name.endswith(("_proj", "lm_head"))
        )
    )


@dataclass(frozen=True)
class Layer:
    """Weights of one layer. head_scale: of each query and key head after its norm, [H + KV, D], or None."""

    attention_norm: Tensor
    qkv: list[Linear]
    head_scale: Tensor | None
    out: Linear
    mlp_norm: Tensor
    gate_up: list[Linear]
    down: Linear


class Decoder:
    """The forward pass of one model. For use without gradients, while the model's weights do not change.

    Errors: ValueError for a model that is not `is_plain`.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        if not is_plain(model):
            raise ValueError(f"this decoder does not know {type(model).__name__} as it is configured")
        config, body = model.config, model.model
        self.queries, self.keys = config.num_attention_heads, config.num_key_value_heads
        self.width = body.layers[0].self_attn.head_dim
        self.eps = config.rms_norm_eps
        self.embedding = body.embed_tokens.weight
        self.rotary = body.rotary_emb
        fuse = sum(p.numel() * p.element_size() for p in body.layers.parameters()) <= FUSE
        self.layers = [self._layer(layer, fuse) for layer in body.layers]
        self.norm = body.norm.weight
        self.head = model.lm_head.weight

    def _layer(self, layer: Any, fuse: bool) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        head_scale = None
        if hasattr(attention, "q_norm"):
            scales = (attention.q_norm.weight.expand(self.queries, -1), attention.k_norm.weight.expand(self.keys, -1))
            head_scale = torch.cat(scales)
        return Layer(
            attention_norm=layer.input_layernorm.weight,
            qkv=_stack_weights([attention.q_proj, attention.k_proj, attention.v_proj], fuse),
            head_scale=head_scale,
            out=(attention.o_proj.weight, attention.o_proj.bias),
            mlp_norm=layer.post_attention_layernorm.weight,
            gate_up=_stack_weights([mlp.gate_proj, mlp.up_proj], fuse),
            down=(mlp.down_proj.weight, mlp.down_proj.bias),
        )

    def angles(self, count: int) -> Tensor:
        """Cosines and sines of positions 0 to count - 1, [count, 2, D]; the first half of the sines is negated."""
        positions = torch.arange(count, device=self.embedding.device)[None]
        cos, sin = self.rotary(self.embedding, positions)
        sin[..., : self.width // 2].neg_()
        return torch.stack((cos[0], sin[0]), 1)

    def logits(self, hidden: Tensor) -> Tensor:
        """[B, hidden] -> [B, V], in the model's dtype."""
        return F.linear(self._rms(hidden, self.norm), self.head)

    def forward(self, ids: Tensor, angles: Tensor, cache: list[Tensor], column: int, mask: Tensor) -> Tensor:
        """Hidden state of the last position, [B, hidden], before the final norm.

        ids: [B, T]; their keys and values are written to columns `column` to column + T - 1 of the KV cache. angles: of
        their positions, [B, T, 2, D]. cache: one [rows, KV + KV, columns, D] per layer, keys before values; with B = 1
        all rows are written. mask: [B, 1, T, column + T], added to the attention scores.
        """
        rows, steps = ids.shape
        end = column + steps
        x = F.embedding(ids, self.embedding).view(rows * steps, -1)
        for layer, stored in zip(self.layers, cache, strict=True):
            heads = self._project(layer, x).view(rows, steps, -1, self.width)
            q, kv = self._rotate(layer, heads, angles)
            stored[:, :, column:end] = kv.transpose(1, 2)
            if layer is self.layers[-1]:
                x, q, mask = x.view(rows, steps, -1)[:, -1], q[:, -1:], mask[:, :, -1:]
            seen = stored[:rows, :, :end]
            x = _add(x, _attend(q, seen[:, : self.keys], seen[:, self.keys :], mask), layer.out)
            y = self._rms(x, layer.mlp_norm)
            parts = [F.linear(y, *linear) for linear in layer.gate_up]
            gate, up = parts if len(parts) == 2 else parts[0].chunk(2, -1)
            x = _add(x, F.silu(gate).mul_(up), layer.down)
        return x

    def _project(self, layer: Layer, x: Tensor) -> Tensor:
        """Queries, keys and values side by side, [N, (H + KV + KV) D]."""
        y = self._rms(x, layer.attention_norm)
        parts = [F.linear(y, *linear) for linear in layer.qkv]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def _rotate(self, layer: Layer, heads: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [B, T, H, D], and keys and values [B, T, KV + KV, D], queries and keys rotated by their angles."""
        unrotated = x = heads[:, :, : -self.keys]
        if layer.head_scale is not None:
            x = F.rms_norm(x, (self.width,), None, self.eps) * layer.head_scale
        cos, sin = angles[:, :, :1], angles[:, :, 1:]
        torch.addcmul(x * cos, x.roll(self.width // 2, -1), sin, out=unrotated)
        return heads[:, :, : self.queries], heads[:, :, self.queries :]

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.eps)


def _stack_weights(modules: list[nn.Linear], fuse: bool) -> list[Linear]:
    """The modules' weights, or one copy of all of them, stacked by output."""
    if not fuse:
        return [(module.weight, module.bias) for module in modules]
    biases: list[Tensor] = [module.bias for module in modules if module.bias is not None]
    return [(torch.cat([module.weight for module in modules]), torch.cat(biases) if biases else None)]


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k' / sqrt(D) + mask) v, [B T, H D]. q: [B, T, H, D]; k, v: [B, KV, columns, D]."""
    rows, steps, queries, width = q.shape
    groups = queries // k.shape[1]
    if steps == 1:  # the heads that share a key take the place of positions
        q = q.reshape(rows, -1, groups, width)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).reshape(rows, -1)
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask)
    return mixed.transpose(1, 2).reshape(rows * steps, -1)


def _add(x: Tensor, y: Tensor, linear: Linear) -> Tensor:
    """x + y weight' (+ bias)."""
    weight, bias = linear
    x = torch.addmm(x, y, weight.t())
    return x if bias is None else x.add_(bias)
