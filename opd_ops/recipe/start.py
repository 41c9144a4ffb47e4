"""Where a run's weights come from."""

from dataclasses import dataclass, field
from typing import Literal

from opd_ops.recipe.later import LATER
from opd_ops.recipe.name import require_name


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A decoder to be initialised from scratch, as Hugging Face's configurations name its sizes.

    family: `qwen3` normalises queries and keys per head, `llama` does not.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 64
    initializer_range: float = 0.08  # near 1/sqrt(hidden); Hugging Face's 0.02 learns four times slower at hidden 128
    family: Literal["qwen3", "llama"] = field(default="qwen3", metadata=LATER)


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

    def __post_init__(self) -> None:
        require_name(self.recipe, "start.recipe")


@dataclass(frozen=True, kw_only=True)
class SnapshotOf:
    """Go on from the fp32 masters of another run's snapshot, not rounded.

    moments: `reset` starts the optimizer anew; `kept` takes the source's moments, which it has only for the steps that
    its `resources.keep_moments` names. Steps, warm-up and schedule count from 0 again either way.
    """

    recipe: str
    step: int
    seed: int | None = None  # None: the run's own seed
    moments: Literal["reset", "kept"] = "reset"
    kind: Literal["snapshot"] = "snapshot"

    def __post_init__(self) -> None:
        require_name(self.recipe, "start.recipe")
        if self.step < 0:
            raise ValueError(f"start.step is a step from 0 up, got {self.step}")
        if self.moments not in ("reset", "kept"):
            raise ValueError(f"unknown start.moments {self.moments!r}; known: reset, kept")
        if self.moments == "kept" and self.step == 0:
            raise ValueError("start.moments 'kept' needs a step from 1 up: before the first there are none")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Start from a Hugging Face folder: `models/<name>` in the store, a local path, or a hub name."""

    ref: str
    kind: Literal["weights"] = "weights"


Start = Fresh | FinalOf | SnapshotOf | Weights
