"""The paper's runs against what the paper and its scripts say (arXiv 2606.07082, appendix C)."""

import inspect

import pytest

from opd_ops.recipe import FinalOf, Opd, Rlvr, Weights
from opd_ops.tasks.jsonl import Jsonl
from opd_ops.training.optimizer import learning_rate
from pipelines.studies import qwen3

SFT, OPD, RLVR = qwen3.study().arms()


def test_the_chain_is_base_anchor_and_two_arms():
    assert [recipe.name for recipe in (SFT, OPD, RLVR)] == ["qwen3-8b.sft", "qwen3-8b.opd", "qwen3-8b.rlvr"]
    assert SFT.start == Weights(ref="Qwen/Qwen3-8B-Base")
    assert OPD.start == RLVR.start == FinalOf(recipe=f"qwen3-8b.{qwen3.study().anchor}")
    assert OPD.objective == Opd(
        teacher=Weights(ref="Qwen/Qwen3-32B"), estimator="policy-gradient", normaliser="sequence"
    )
    assert RLVR.objective == Rlvr(clip=(0.2, 0.28), drop_flat=True, std="group", normaliser="sequence")


def test_checkpoints_are_those_of_the_paper_counted_from_one():
    counted = lambda recipe: tuple(step - 1 for step in recipe.horizon.snapshot_steps())
    assert counted(OPD) == (63, 127, 191, 255, 299)
    assert counted(SFT)[:2] == (255, 511) and counted(SFT)[-1] == 5375 and len(counted(SFT)) == 21
    assert counted(RLVR)[-1] == 1023 and 63 in counted(RLVR)


def test_a_step_is_one_batch():
    batch = lambda recipe: recipe.rollout.prompts * recipe.rollout.samples
    assert (batch(SFT), batch(OPD), batch(RLVR)) == (256, 64, 512)
    assert OPD.rollout.samples == RLVR.rollout.samples == 8
    assert (OPD.rollout.max_new_tokens, RLVR.rollout.max_new_tokens) == (16_384, 8_192)
    assert {recipe.rollout.temperature for recipe in (OPD, RLVR)} == {1.0}


def test_the_learning_rate_of_sft_rises_for_a_tenth_and_falls_to_a_tenth():
    steps = SFT.horizon.steps
    rates = [learning_rate(SFT.optimizer, step, steps) for step in range(1, steps + 1)]
    assert max(rates) == pytest.approx(1e-5) and rates.index(max(rates)) + 1 == pytest.approx(0.1 * steps, abs=1)
    assert rates[-1] == pytest.approx(1e-6)
    assert SFT.optimizer.betas == (0.9, 0.95)


def test_the_other_rates_are_constant():
    for recipe in (OPD, RLVR):
        rates = {learning_rate(recipe.optimizer, step, recipe.horizon.steps) for step in (1, 2, recipe.horizon.steps)}
        assert rates == {1e-6}
        assert recipe.optimizer.betas == (0.9, 0.98)
    assert (OPD.optimizer.eps, RLVR.optimizer.eps) == (1e-8, 1e-15)
    assert {recipe.optimizer.weight_decay for recipe in (SFT, OPD, RLVR)} == {0.1}


def test_precision_and_evaluation_are_shared():
    assert len({str(recipe.precision) for recipe in (SFT, OPD, RLVR)}) == 1
    assert SFT.precision.compute == "bf16"
    for recipe in (SFT, OPD, RLVR):
        assert (recipe.evaluation.problems, recipe.evaluation.samples) == (30, 8)
        assert recipe.rollout.engine == "vllm"
        assert recipe.task.name == "jsonl"
        assert {recipe.task.options[name].rpartition("/")[0] for name in ("path", "held_out")} == {qwen3.DATA}
    files = [recipe.task.options["path"] for recipe in (SFT, OPD, RLVR)]
    assert files[0] != files[1] == files[2]


def test_the_task_has_the_options_that_the_recipes_name():
    parameters = set(inspect.signature(Jsonl).parameters)
    assert all(set(recipe.task.options) <= parameters for recipe in (SFT, OPD, RLVR))
