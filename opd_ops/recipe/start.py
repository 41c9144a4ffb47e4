"""Where a run's weights come from."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder to be initialised from scratch, as Hugging Face's Qwen3 configuration names its sizes."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 64
    initializer_range: float = 0.08  # near 1/sqrt(hidden); Hugging Face's 0.02 learns four times slower at hidden 128


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """Start from random weights (W0 of pretraining)."""

    architecture: Architecture
    kind: Literal["fresh"] = "fresh"


@dataclass(frozen=True, kw_only=True)
class FinalOf:
    """Start from the bf16 view of another run's last snapshot, as a released checkpoint would be."""

    recipe: str
    seed: int | None = None  # None: the run's own seed
    kind: Literal["final"] = "final"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Start from a Hugging Face folder: `models/<name>` in the store, a local path, or a hub name."""

    ref: str
    kind: Literal["weights"] = "weights"


Start = Fresh | FinalOf | Weights
