"""The constrained arms: one factor at a time around one centre, each from the snapshot that its parent keeps."""

from typing import Any

import pytest

from opd_ops.recipe import Constraint, Random, SnapshotOf, UpdateOf, WeightsOf, differences
from pipelines.runs.trajectories.training import parents
from pipelines.studies import smollm, tiny
from pipelines.studies.catalog import find_recipe

ARMS: dict[str, Any] = {recipe.arm: recipe for recipe in tiny.interventions()}
PARENTS = ("opd", "sft", "sft-matched", "rlvr")
VARIED = {
    "own4": "constraint.rank", "own64": "constraint.rank", "own16-both": "constraint.side",
    "own16-update": "constraint.mode", "own16-compressed": "constraint.mode",
}  # fmt: skip


def changed(left, right):
    return {line.split(": ")[0] for line in differences(left.identity(), right.identity())} - {"arm"}


def test_there_are_five_arms_a_parent_and_eight_variations_of_two():
    assert len(ARMS) == len(tiny.interventions()) == 4 * 5 + 2 * 8


@pytest.mark.parametrize("parent", PARENTS)
def test_the_free_arm_differs_from_its_parent_in_start_and_horizon_alone(parent):
    free, whole = ARMS[f"{parent}-at20"], find_recipe(f"tiny.{parent}")
    assert {field.split(".")[0] for field in changed(free, whole)} == {"start", "horizon"}
    assert free.start == SnapshotOf(recipe=whole.name, step=20) and free.constraint is None
    assert free.horizon.steps == 80 and free.horizon.gate is None
    assert {4, 8, 40, 80} <= set(free.horizon.snapshot_steps()), "5, 10, 50 and 100 % are there to be compared"


@pytest.mark.parametrize("parent", PARENTS)
def test_the_confined_arms_differ_from_the_free_one_in_their_constraint_alone(parent):
    other = "sft" if parent == "opd" else "opd"
    bases = {
        "own16": UpdateOf(recipe=f"tiny.{parent}", step=20),
        "random16": Random(),
        "start16": WeightsOf(recipe=f"tiny.{parent}"),
        f"{other}16": UpdateOf(recipe=f"tiny.{other}", step=20),
    }
    for name, basis in bases.items():
        arm = ARMS[f"{parent}-at20-{name}"]
        assert arm.constraint == Constraint(basis=basis, rank=16, side="right", mode="gradient")
        assert {field.split(".")[0] for field in changed(arm, ARMS[f"{parent}-at20"])} == {"constraint"}


@pytest.mark.parametrize("parent", ("opd", "sft"))
@pytest.mark.parametrize("name", VARIED)
def test_a_variation_changes_one_factor_of_the_centre(parent, name):
    assert changed(ARMS[f"{parent}-at20-{name}"], ARMS[f"{parent}-at20-own16"]) == {VARIED[name]}


@pytest.mark.parametrize("parent", ("opd", "sft"))
def test_the_matched_arm_is_the_compressed_one_with_longer_steps(parent):
    matched, compressed = (ARMS[f"{parent}-at20-own16-{mode}"] for mode in ("matched", "compressed"))
    assert changed(matched, compressed) == {"constraint.matched"}


@pytest.mark.parametrize("parent", ("opd", "sft"))
@pytest.mark.parametrize("begin", (5, 50))
def test_another_start_takes_its_basis_there_and_ends_at_the_same_step(parent, begin):
    arm = ARMS[f"{parent}-at{begin}-own16"]
    assert arm.start.step == arm.constraint.basis.step == begin
    assert begin + arm.horizon.steps == 100


def test_every_snapshot_that_an_arm_begins_from_is_kept_by_its_parent():
    for recipe in (*tiny.interventions(), *smollm.interventions()):
        assert isinstance(recipe.start, SnapshotOf)
        needed = {(recipe.start.recipe, recipe.start.step)}
        if recipe.constraint and isinstance(recipe.constraint.basis, UpdateOf):
            needed.add((recipe.constraint.basis.recipe, recipe.constraint.basis.step))
        for name, step in needed:
            assert step in find_recipe(name).horizon.snapshot_steps(), recipe.name
            assert (name, 7) in parents(recipe, 7)


def test_smollm_has_free_own_and_random_arms_of_both():
    found = [recipe.arm for recipe in smollm.interventions()]
    assert found == [f"{arm}-at4{rest}" for arm in ("sft", "opd") for rest in ("", "-own16", "-random16")]
    assert len(smollm.study().seeds) == 3
    arms: Any = smollm.interventions()
    assert all(recipe.start.step + recipe.horizon.steps == 15 for recipe in arms)
