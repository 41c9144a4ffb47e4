"""A packed forward pass: skips padding in all layers, and prompt positions in the last layer's MLP and the final norm.

ids [B, L] have N tokens that are not padding. Hidden states are [1, N, hidden], so that matrix products, norms and MLPs
cost N positions instead of B L. Queries, keys and values are scattered back into the padded batch for attention. The
results differ from the model's own forward pass only by the rounding of products with different numbers of rows;
gradients of weights sum over fewer zeros.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "opd_packed"
FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


@dataclass(frozen=True)
class Packing:
    """The positions of the N tokens of a batch [B, L] that are not padding.

    places: [N], position of each token in the flat [B L]. tokens: [B L], index of the token at each position; at
    padding, of the first token. mask: [B, 1, L, L], true where a key is visible; padding sees only itself. None without
    padding: attention is then plain causal.
    """

    places: Tensor
    tokens: Tensor
    rows: int
    columns: int
    mask: Tensor | None

    @classmethod
    def from_mask(cls, attention: Tensor) -> "Packing":
        """attention: [B, L], zero at the padding."""
        (rows, columns), seen = attention.shape, attention.bool()
        places, mask = seen.reshape(-1).nonzero().squeeze(1), None
        if len(places) < seen.numel():
            square = torch.ones(columns, columns, dtype=torch.bool, device=attention.device)
            own = torch.eye(columns, dtype=torch.bool, device=attention.device)
            mask = (square.tril() & (seen[:, None, :, None] & seen[:, None, None, :])) | own
        tokens = seen.reshape(-1).cumsum(0).sub_(1).clamp_(min=0).mul_(seen.reshape(-1))
        return cls(places, tokens, rows, columns, mask)

    def pad(self, x: Tensor) -> Tensor:
        """[N, ...] -> [B, L, ...]. Padding gets the first token, which the mask hides."""
        if self.mask is not None:
            x = _Moved.apply(x, self.tokens, self.places)  # type: ignore[assignment]
        return x.unflatten(0, (self.rows, self.columns))

    def pack(self, x: Tensor) -> Tensor:
        """[B, L, ...] -> [N, ...]."""
        x = x.flatten(0, 1)
        return x if self.mask is None else _Moved.apply(x, self.places, self.tokens)  # type: ignore[return-value]


def packs(model: Any) -> bool:
    """Whether `hidden` supports the model: an unmodified model of FAMILIES, without hooks or sliding windows."""
    config: Any = getattr(model, "config", None)
    return (
        FAMILIES.get(getattr(config, "model_type", "")) == type(model).__name__
        and config._attn_implementation in ("sdpa", NAME)
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and getattr(config, "sliding_window", None) is None
        and not any(map(_has_hooks, (model, model.model, model.model.layers[-1])))  # which `hidden` does not call
    )


def _has_hooks(module: nn.Module) -> bool:
    before_and_after = module._forward_pre_hooks, module._forward_hooks
    return any((*before_and_after, module._backward_pre_hooks, module._backward_hooks))


def hidden_states(model: Any, ids: Tensor, attention: Tensor, positions: Tensor, width: int) -> Tensor:
    """Final hidden states [B, width, hidden] of the last `width` positions of a model that `packs`.

    The last layer's MLP runs only on these positions. Values at padding are those of some token. ids, positions:
    [B, L]; attention: [B, L], zero at padding.
    """
    model.config._attn_implementation = NAME
    body, packing = model.model, Packing.from_mask(attention)
    places, first = packing.places, packing.columns - width
    x = body.embed_tokens(ids.reshape(-1)[places])[None]
    angles = body.rotary_emb(x, positions.reshape(-1)[places][None])
    how = {"position_embeddings": angles, "attention_mask": packing.mask, "packing": packing}
    *layers, last = body.layers
    for layer in layers:
        x = layer(x, **how)
    x = x + last.self_attn(last.input_layernorm(x), **how)[0]
    late = (places % packing.columns >= first).nonzero().squeeze(1)
    x = x[0, late]
    x = body.norm(x + last.mlp(last.post_attention_layernorm(x)))
    ends = Packing.from_mask(attention[:, first:])
    return _Moved.apply(x, ends.tokens, ends.places).unflatten(0, (ends.rows, width))  # type: ignore[union-attr]


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **how: Any
) -> tuple[Tensor, None]:
    """Attention of a packed batch: query, key, value [1, H or KV, N, D] -> [1, N, H, D]. Otherwise plain SDPA."""
    packing: Packing | None = how.pop("packing", None)
    if packing is None:
        return sdpa_attention_forward(module, query, key, value, mask, **how)
    q, k, v = (packing.pad(x[0].transpose(0, 1)).transpose(1, 2) for x in (query, key, value))
    output, _ = sdpa_attention_forward(module, q, k, v, mask, **how)
    return packing.pack(output)[None], None


class _Moved(torch.autograd.Function):
    """x[index]. The gradient of x is gradient[inverse], so gradients at padding reach no token."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return gradient.index_select(0, ctx.saved_tensors[0]), None, None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
