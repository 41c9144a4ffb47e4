"""The sizes of a decoder from shapes alone: it is built on the meta device, whose tensors have no bytes.

Or, without torch, by the counts of a plain decoder's configuration (`counted`), which leave out biases and extra norms.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from opd_ops.recipe import Fresh, Recipe, Start, Weights
from opd_ops.roles import PROJECTIONS, role
from pipelines.studies.study import Study

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Counts of weights and widths of activations. Bytes are of what a Qwen3 block keeps, counted in its own code."""

    parameters: int  # tied ones once
    products: int  # weights that every token is multiplied with: matrices but the input embedding
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    def shape(self, part: str) -> tuple[int, int]:
        """[out, in] of a projection, by its role."""
        attention, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q": (attention, self.hidden),
            "k": (keys, self.hidden),
            "v": (keys, self.hidden),
            "o": (self.hidden, attention),
            "gate": (self.intermediate, self.hidden),
            "up": (self.intermediate, self.hidden),
            "down": (self.hidden, self.intermediate),
        }[part]

    def forward(self, rows: float, length: float) -> float:
        """Operations of a forward of `rows` sequences: 2 per weight and token, and causal attention."""
        return rows * (2.0 * self.products * length + 2.0 * length**2 * self.heads * self.head_dim * self.layers)

    def cache(self, width: int) -> int:
        """Bytes of keys and values that one token keeps in all layers, `width` bytes a number."""
        return 2 * self.kv_heads * self.head_dim * self.layers * width

    def block(self, width: int) -> int:
        """Bytes a token that one block keeps for its backward pass, with fused attention.

        Norms keep an fp32 and two rounded copies of what they read (hidden twice, queries and keys), attention its
        inputs and output, the MLP four intermediates; besides fp32 scales of the norms and of the softmax.
        """
        attention = (self.heads + self.kv_heads) * self.head_dim
        kept = (8 + 4 * width) * self.hidden + (4 + 3 * width) * attention + 4 * width * self.intermediate
        return kept + 4 * (2 + 2 * self.heads + self.kv_heads)

    def activations(self, tokens: int, width: int, *, checkpointed: bool) -> int:
        """Bytes kept for the backward pass of all blocks; checkpointed: their inputs, and all of one block."""
        if checkpointed:
            return tokens * (self.layers * self.hidden * width + self.block(width))
        return tokens * self.layers * self.block(width)


def counted(config: Mapping[str, Any]) -> Sizes | None:
    """The sizes that a configuration as plain JSON has, without torch; None where it is no plain decoder's."""
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        found = Sizes(
            parameters=0,
            products=0,
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            vocabulary=int(config["vocab_size"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
    blocks = found.layers * sum(math.prod(found.shape(part)) for part in PROJECTIONS)
    table, norms = found.vocabulary * hidden, (2 * found.layers + 1) * hidden
    tables = 1 if config.get("tie_word_embeddings", True) else 2
    return replace(found, parameters=blocks + tables * table + norms, products=blocks + table)


def meta(config: "PretrainedConfig") -> "PreTrainedModel":
    """The model without bytes."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[return-value]


def sizes(model: "PreTrainedModel") -> Sizes:
    """Errors: ValueError naming a parameter of unknown role, or a layer that lacks a projection."""
    config, shapes = model.config, {name: tuple(p.shape) for name, p in model.named_parameters()}
    roles = {name: role(name) for name in shapes}
    if unknown := [name for name, (_, part) in roles.items() if part == "other"]:
        raise ValueError(f"parameter {unknown[0]} has no known role ({len(unknown)} of them); this is no plain decoder")
    for layer in range(config.num_hidden_layers):
        if lacking := [part for part in PROJECTIONS if (layer, part) not in roles.values()]:
            raise ValueError(f"layer {layer} has no projection {lacking[0]}; this is no plain decoder")
    count = {name: math.prod(shape) for name, shape in shapes.items()}
    tied = not any(part == "head" for _, part in roles.values())
    heads = config.num_attention_heads
    return Sizes(
        parameters=sum(count.values()),
        products=sum(
            count[name] for name, (_, part) in roles.items() if part in (*PROJECTIONS, "head", *["embed"] * tied)
        ),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=config.vocab_size,
    )


def require_logits(model: "PreTrainedModel", rows: int, length: int, keep: int) -> None:
    """Run a micro-batch through the meta model. Errors: ValueError when the logits are not [rows, keep, vocabulary]."""
    import torch

    seen = torch.ones((1, 1, length, length), dtype=torch.bool, device="meta")  # a mask whose values are never read
    ids = torch.zeros((rows, length), dtype=torch.long, device="meta")
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=seen, use_cache=False, logits_to_keep=keep).logits
    wanted = (rows, keep, model.config.vocab_size)
    if tuple(logits.shape) != wanted:
        raise ValueError(f"the model gives logits {tuple(logits.shape)} for a micro-batch, not {wanted}")


def known_config(study: Study, start: Start) -> "PretrainedConfig | None":
    """The configuration of fresh weights, of those in the study's `configs`, or of the run whose end they are."""
    from opd_ops import models

    if isinstance(start, Fresh):
        return models.configuration(start.architecture, pad=0, bos=1, eos=2)
    if isinstance(start, Weights):
        return models.configuration_from(study.configs[start.ref]) if start.ref in study.configs else None
    recipes: dict[str, Recipe] = {recipe.name: recipe for recipe in (*study.models, *study.every_arm())}
    return known_config(study, recipes[start.recipe].start) if start.recipe in recipes else None
