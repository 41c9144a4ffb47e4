"""The sizes of a decoder, counted from its configuration without building it. Biases are left out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from opd_ops.recipe import Fresh, Start, Weights
from opd_ops.roles import PROJECTIONS
from pipelines.studies.study import Study


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Counts of weights and widths of activations. Bytes are those that a Qwen3 block keeps."""

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
        """Bytes of one token in the KV cache of all layers, at `width` bytes a number."""
        return 2 * self.kv_heads * self.head_dim * self.layers * width

    def block(self, width: int) -> int:
        """Bytes that one block keeps of a token for its backward pass, with fused attention.

        Norms keep an fp32 and two rounded copies of their input (hidden twice, queries and keys), attention its inputs
        and output, the MLP four intermediates; besides them, fp32 scales of the norms and of the softmax.
        """
        attention = (self.heads + self.kv_heads) * self.head_dim
        kept = (8 + 4 * width) * self.hidden + (4 + 3 * width) * attention + 4 * width * self.intermediate
        return kept + 4 * (2 + 2 * self.heads + self.kv_heads)

    def activations(self, tokens: int, width: int, *, checkpointed: bool) -> int:
        """Bytes kept for the backward pass of all blocks; checkpointed: their inputs, and all of one block."""
        if checkpointed:
            return tokens * (self.layers * self.hidden * width + self.block(width))
        return tokens * self.layers * self.block(width)


def count_sizes(config: Mapping[str, Any]) -> Sizes | None:
    """The sizes of a decoder from its configuration as plain JSON; None where that is no plain decoder's."""
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        sizes = Sizes(
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
    blocks = sizes.layers * sum(math.prod(sizes.shape(part)) for part in PROJECTIONS)
    table, norms = sizes.vocabulary * hidden, (2 * sizes.layers + 1) * hidden
    if config.get("model_type", config.get("family")) == "qwen3":
        norms += 2 * sizes.layers * sizes.head_dim  # of queries and keys
    tables = 1 if config.get("tie_word_embeddings", True) else 2
    return replace(sizes, parameters=blocks + tables * table + norms, products=blocks + table)


def known_sizes(study: Study, start: Start | None) -> Sizes | None:
    """The sizes of fresh weights, of weights in the study's `configs`, or of those that the named run starts from."""
    if isinstance(start, Fresh):
        return count_sizes(vars(start.architecture))
    if start is None or isinstance(start, Weights):
        return count_sizes(study.configs[start.ref]) if start and start.ref in study.configs else None
    recipes = {recipe.name: recipe for recipe in (*study.models, *study.every_arm())}
    return known_sizes(study, recipes[start.recipe].start) if start.recipe in recipes else None
