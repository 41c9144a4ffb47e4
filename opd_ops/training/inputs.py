"""What a trainer is made from besides its recipe: the state it begins with, and where its responses come from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig

from opd_ops.recipe.reaction import Rail
from opd_ops.rollout.rollout import Engine
from opd_ops.training.drawing import Rewards
from opd_ops.training.optimizer import Moments
from opd_ops.training.subspace import Bases


@dataclass(frozen=True)
class InitialState:
    """config, weights: of the model, in fp32. moments: an optimizer's state to go on with. bases: of the recipe's
    constraint. rails: the band of its reaction's guard."""

    config: PretrainedConfig
    weights: dict[str, Tensor]
    moments: Moments | None = None
    bases: Bases | None = None
    rails: tuple[Rail, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RolloutSources:
    """engine: draws responses; None is the trainer's process, on the trained weights themselves. teacher_engine: draws
    them where the rollout source is the teacher. stored: another run's responses by step, for a replay. rewards:
    verifies responses; None asks the task one by one."""

    engine: Engine | None = None
    teacher_engine: Engine | None = None
    stored: Callable[[int], list[dict[str, Any]]] | None = None
    rewards: Rewards | None = None
