"""The suite scaling: the core arms at other widths, another depth and in another family, with the same recipe.

    w64, w256   hidden 64 and 256 beside 128, everything else in proportion (heads of 32 entries)
    d4          4 layers beside 2
    llama       no norms of queries and keys, and as many key and value heads as query heads

Each has a base and a teacher of its own, trained once, and per seed <size>-sft (its anchor) -> <size>-opd, <size>-rlvr.
Post-training is that of the core arms to the letter, gates included. The learning rates of base, teacher and anchor
follow the size, and small models and Llamas have 800 steps to pass the base's gate: at the core's settings they do not.
"""

from dataclasses import dataclass, replace

from opd_ops.recipe import Architecture, FinalOf, Fresh, Opd, Recipe
from pipelines.studies.tiny.core import ARCHITECTURE, base, opd, rlvr, sft, teacher


@dataclass(frozen=True, kw_only=True)
class Size:
    """An architecture, the factor on the learning rates of base, teacher and anchor, and the limit of pretraining."""

    name: str
    architecture: Architecture
    rate: float
    steps: int = 400


def wide(hidden: int) -> Architecture:
    share = hidden / ARCHITECTURE.hidden_size
    return replace(
        ARCHITECTURE,
        hidden_size=hidden,
        intermediate_size=round(share * ARCHITECTURE.intermediate_size),
        num_attention_heads=round(share * ARCHITECTURE.num_attention_heads),
        num_key_value_heads=round(share * ARCHITECTURE.num_key_value_heads),
    )


SIZES = (
    Size(name="w64", architecture=wide(64), rate=2.0, steps=800),
    Size(name="w256", architecture=wide(256), rate=0.5),
    Size(name="d4", architecture=replace(ARCHITECTURE, num_hidden_layers=4), rate=0.75),
    Size(
        name="llama",
        architecture=replace(ARCHITECTURE, family="llama", num_key_value_heads=ARCHITECTURE.num_attention_heads),
        rate=0.75,
        steps=800,
    ),
)


def helpers() -> tuple[Recipe, ...]:
    """Base and teacher of each size."""
    return tuple(recipe for size in SIZES for recipe in (_base(size), _model_of_size(size, teacher())))


def scaling() -> tuple[Recipe, ...]:
    return tuple(_model_of_size(size, recipe) for size in SIZES for recipe in (sft(), opd(), rlvr()))


def _base(size: Size) -> Recipe:
    named = replace(base(), arm=f"{size.name}-base", start=Fresh(architecture=size.architecture))
    return _rated(size, replace(named, horizon=replace(named.horizon, steps=size.steps)))


def _model_of_size(size: Size, recipe: Recipe) -> Recipe:
    """`recipe` among the models of a size."""
    start, objective = recipe.start, recipe.objective
    assert isinstance(start, FinalOf)
    named = replace(recipe, arm=f"{size.name}-{recipe.arm}", start=replace(start, recipe=_own(size, start.recipe)))
    if isinstance(objective, Opd) and isinstance(objective.teacher, FinalOf):
        own = replace(objective.teacher, recipe=_own(size, objective.teacher.recipe))
        return replace(named, objective=replace(objective, teacher=own))
    return named if recipe.arm == rlvr().arm else _rated(size, named)


def _own(size: Size, recipe: str) -> str:
    study, arm = recipe.split(".", 1)
    return f"{study}.{size.name}-{arm}"


def _rated(size: Size, recipe: Recipe) -> Recipe:
    rate = size.rate * recipe.optimizer.learning_rate
    return replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=rate))
