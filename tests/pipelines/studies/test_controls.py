"""The controls differ from the arm they are beside in what their name says."""

from opd_ops.recipe import Mix, NormOf, differences
from pipelines.runs.trajectories.training import parents
from pipelines.studies import tiny

ARMS = {recipe.arm: recipe for recipe in tiny.controls()}


def changed(left, right):
    return {line.split(": ")[0] for line in differences(left.identity(), right.identity())} - {"arm"}


def sequences(recipe):
    return recipe.rollout.prompts * recipe.rollout.samples


def test_each_control_changes_one_setting():
    opd, rlvr, sft = tiny.opd(), tiny.rlvr(), tiny.sft()
    assert changed(ARMS["rlvr-32x8"], rlvr) == {"rollout.prompts"} and sequences(ARMS["rlvr-32x8"]) == 256
    assert changed(ARMS["opd-8x8"], opd) == {"rollout.prompts", "rollout.samples"}
    assert ARMS["opd-8x8"].rollout == rlvr.rollout and sequences(ARMS["opd-8x8"]) == sequences(opd)
    assert changed(ARMS["opd-fast"], opd) == {"optimizer.learning_rate"}
    assert ARMS["opd-fast"].optimizer.learning_rate == sft.optimizer.learning_rate
    assert ARMS["sft-slow"].optimizer == opd.optimizer and ARMS["sft-slow"].horizon == opd.horizon
    assert ARMS["sft-slow"].start == sft.start and ARMS["sft-slow"].objective == sft.objective
    assert {field.split(".")[0] for field in changed(ARMS["rlvr-norm"], rlvr)} == {"horizon"}


def test_alpha_zero_is_rlvr_at_opds_batch():
    mix = ARMS["opd-mix-00"]
    assert isinstance(mix.objective, Mix) and mix.objective.alpha == 0
    assert mix.objective.rlvr == tiny.rlvr().objective
    assert sequences(mix) == sequences(tiny.opd()) and mix.horizon == tiny.opd().horizon


def test_the_norm_matched_run_waits_for_the_run_whose_norm_it_has():
    norm = ARMS["rlvr-norm"]
    assert norm.horizon.until == NormOf(recipe="tiny.opd")
    assert ("tiny.opd", 2) in parents(norm, 2)
    assert norm.horizon.steps > tiny.rlvr().horizon.steps
