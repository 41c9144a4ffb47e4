"""The suite `objectives` of the tiny study: every arm is `opd` but for what its name says."""

from typing import Any

import numpy as np
import pytest

from opd_ops.recipe import FinalOf, Mix, Opd, Rlvr, Selection, Student, Teacher, differences
from opd_ops.tasks.registry import build
from pipelines.studies import tiny

ARMS: dict[str, Any] = {recipe.arm: recipe for recipe in tiny.study().arms("objectives")}
MIXES = {"opd-mix-75": 0.75, "opd-mix-50": 0.5, "opd-mix-25": 0.25, "opd-mix-05": 0.05, "opd-mix-01": 0.01}
KEPT = {"opd-top50": 0.5, "opd-random50": 0.5, "opd-top25": 0.25, "opd-random25": 0.25}


def changed(arm, beside="opd"):
    """The fields in which an arm differs from another, by their full names."""
    there = {"opd": tiny.opd, "rlvr": tiny.rlvr}[beside]()
    return {line.partition(":")[0] for line in differences(there.identity(), ARMS[arm].identity())} - {"arm"}


def test_the_arms_are_the_papers_and_one_that_teaches_itself():
    others = {"opd-pg", "opd-teacher-rollouts", "opd-stale16", "opd-self"}
    assert set(ARMS) == others | set(KEPT) | set(MIXES)
    assert not set(ARMS) & {recipe.arm for recipe in tiny.study().arms("core")}


def test_the_core_suite_is_the_default_and_the_nightly_one():
    assert [recipe.arm for recipe in tiny.study().arms()] == ["sft", "opd", "rlvr", "sft-matched"]
    assert tiny.study().nightly == ("core",)


@pytest.mark.parametrize(
    ("arm", "field"),
    [
        ("opd-pg", "objective.estimator"),
        ("opd-self", "objective.teacher"),
        ("opd-stale16", "rollout.source.lag"),
        *((arm, "objective.selection") for arm in KEPT),
    ],
)
def test_an_arm_differs_from_opd_in_one_factor(arm, field):
    assert changed(arm) == {field}


def test_teacher_rollouts_differ_from_opd_in_their_source():
    assert {field.rpartition(".")[0] for field in changed("opd-teacher-rollouts")} == {"rollout.source"}
    assert ARMS["opd-teacher-rollouts"].rollout.source == Teacher()


def test_what_the_factors_are():
    assert ARMS["opd-pg"].objective.estimator == "policy-gradient"
    assert ARMS["opd-pg"].objective.divergence == "reverse-kl"
    assert ARMS["opd-stale16"].rollout.source == Student(lag=16)
    assert ARMS["opd-self"].objective == Opd(teacher=None)
    for arm, keep in KEPT.items():
        by = "gap" if "top" in arm else "random"
        assert ARMS[arm].objective.selection == Selection(by=by, keep=keep)
        # The exact estimator, since the sampled one selected by its own gap follows no divergence.
        assert ARMS[arm].objective.estimator == "full"


def test_mixes_are_rlvr_but_for_the_objective():
    for arm, alpha in MIXES.items():
        assert {field.partition(".")[0] for field in changed(arm, "rlvr")} == {"objective"}
        mix = ARMS[arm].objective
        assert isinstance(mix, Mix) and (mix.alpha, mix.scale, mix.rlvr) == (alpha, "raw", Rlvr())
        assert (mix.opd.estimator, mix.opd.normaliser) == ("policy-gradient", mix.rlvr.normaliser)
        assert mix.opd.teacher == vars(tiny.opd().objective)["teacher"]


def test_every_arm_starts_from_the_anchor_of_its_seed_and_trains_as_long_as_opd():
    opd = tiny.opd()
    for recipe in ARMS.values():
        assert recipe.start == FinalOf(recipe="tiny.sft")
        assert (recipe.optimizer, recipe.horizon, recipe.evaluation) == (opd.optimizer, opd.horizon, opd.evaluation)
        assert recipe.rollout.prompts * recipe.rollout.samples == opd.rollout.prompts * opd.rollout.samples


def test_the_self_teacher_reads_more_than_its_student():
    (problem,) = build(ARMS["opd-self"].task, None).problems("train", 1, np.random.default_rng(0))
    assert problem.privileged and problem.privileged != problem.prompt
