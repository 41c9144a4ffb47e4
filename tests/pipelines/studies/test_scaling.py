"""The core arms at other sizes: the same recipe but for the architecture, and what pretraining needs to learn."""

from typing import Any

import pytest

from opd_ops.models import configuration, initialise
from opd_ops.recipe import Fresh, differences
from pipelines.runs.trajectories.training import parents
from pipelines.studies import tiny
from pipelines.studies.catalog import find_recipe
from pipelines.studies.tiny.scaling import SIZES, helpers

each = pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
ANCHORED = {"opd": tiny.opd(), "rlvr": tiny.rlvr()}


def changed(left, right):
    return {line.split(": ")[0] for line in differences(left.identity(), right.identity())} - {"arm"}


def test_three_widths_two_depths_and_a_second_family():
    sizes = [tiny.ARCHITECTURE, *(size.architecture for size in SIZES)]
    assert {a.hidden_size for a in sizes} == {64, 128, 256}
    assert {a.num_hidden_layers for a in sizes} == {2, 4}
    assert {a.family for a in sizes} == {"qwen3", "llama"}
    (llama,) = [a for a in sizes if a.family == "llama"]
    assert llama.num_key_value_heads == llama.num_attention_heads


@each
def test_the_proportions_are_those_of_the_core(size):
    ours, core = size.architecture, tiny.ARCHITECTURE
    assert ours.head_dim == core.head_dim and ours.vocab_size == core.vocab_size
    assert ours.intermediate_size / ours.hidden_size == core.intermediate_size / core.hidden_size
    assert ours.num_attention_heads * ours.head_dim == ours.hidden_size
    config = configuration(ours, pad=0, bos=1, eos=2)
    assert all(weight.isfinite().all() for weight in initialise(config, 0).values())


@each
@pytest.mark.parametrize("arm", ANCHORED)
def test_post_training_is_the_cores_to_the_letter(size, arm):
    ours: Any = find_recipe(f"tiny.{size.name}-{arm}")
    assert changed(ours, ANCHORED[arm]) <= {"start.recipe", "objective.teacher.recipe"}
    assert ours.start.recipe == f"tiny.{size.name}-sft"
    if ours.objective.needs_teacher:
        assert ours.objective.teacher.recipe == f"tiny.{size.name}-teacher"


@each
def test_pretraining_differs_in_rate_and_limit_alone(size):
    rates = {"optimizer.learning_rate"}
    base, sft = find_recipe(f"tiny.{size.name}-base"), find_recipe(f"tiny.{size.name}-sft")
    extra = {"horizon.steps"} | {
        field for field in changed(base, tiny.base()) if field.startswith("start.architecture")
    }
    assert changed(base, tiny.base()) <= rates | extra
    assert changed(sft, tiny.sft()) <= rates | {"start.recipe"}
    assert changed(find_recipe(f"tiny.{size.name}-teacher"), tiny.teacher()) <= rates | {"start.recipe"}
    assert isinstance(base.start, Fresh) and base.start.architecture == size.architecture


def test_bases_and_teachers_are_helpers_of_seed_zero():
    named = {recipe.name for recipe in helpers()}
    assert named == {f"tiny.{size.name}-{arm}" for size in SIZES for arm in ("base", "teacher")}
    assert tiny.study().helpers == helpers()
    for recipe in tiny.scaling():
        assert {seed for name, seed in parents(recipe, 2) if name in named} <= {0}
        assert {seed for name, seed in parents(recipe, 2) if name not in named} <= {2}
