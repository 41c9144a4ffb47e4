import dataclasses
import json
import subprocess
import sys

import pytest

from opd_ops.recipe import FinalOf, Opd, Weights, differences
from opd_ops.tasks.registry import build
from pipelines.runs.trajectories.training import parents
from pipelines.studies import smollm, tiny
from pipelines.studies.catalog import find_recipe, find_study, list_studies

each = pytest.mark.parametrize("study", list_studies().values(), ids=lambda study: study.name)


def every(study):
    return (*study.models, *study.helpers, *study.every_arm())


def test_names_are_unique_across_studies():
    names = [recipe.name for study in list_studies().values() for recipe in every(study)]
    assert len(set(names)) == len(names)
    assert {name: study.name for name, study in list_studies().items()} == {name: name for name in list_studies()}


@each
def test_recipes_are_of_their_study_and_found_by_name(study):
    assert find_study(study.name) == study
    for recipe in every(study):
        assert recipe.name == f"{study.name}.{recipe.arm}"
        assert find_recipe(recipe.name) == recipe


@each
def test_a_recipe_comes_after_the_runs_it_needs(study):
    known = set()
    for recipe in every(study):
        assert {name for name, _ in parents(recipe, 0)} <= known, recipe.name
        known.add(recipe.name)


@each
def test_what_is_trained_once_is_asked_for_by_its_seed(study):
    models = {recipe.name for recipe in (*study.models, *study.helpers)}
    for recipe in every(study):
        # An arm of seed 5 comes from arms of seed 5 and from models of seed 0.
        guard = recipe.reaction.guard.reference if recipe.reaction else None  # a band is of several seeds
        for name, seed in parents(recipe, 5):
            if name == guard:
                assert seed in study.seeds
                continue
            assert seed == (0 if name in models else 5), recipe.name


@each
def test_models_of_other_models_never_depend_on_an_arm(study):
    arms = {recipe.name for recipe in study.every_arm()}
    assert not {name for model in (*study.models, *study.helpers) for name, _ in parents(model, 0)} & arms


@each
def test_nightly_suites_and_the_anchor_exist(study):
    assert set(study.nightly) <= set(study.suites)
    assert "core" in study.suites and study.arms() == study.suites["core"]
    anchors = [recipe.arm for recipe in study.arms() if recipe.arm == study.anchor]
    assert len(anchors) == (study.anchor is not None)
    assert list(study.anchors()) == [recipe for recipe in study.arms() if recipe.arm == study.anchor]


@each
def test_weights_and_their_configurations_are_plain_data(study):
    assert json.loads(json.dumps(study.configs)) == study.configs
    named = {start.ref for recipe in every(study) for start in starts(recipe) if isinstance(start, Weights)}
    assert set(study.configs) <= named


def starts(recipe):
    teacher = recipe.objective.teacher
    return [recipe.start, *([teacher] if teacher else [])]


@pytest.mark.parametrize("study", (tiny.study(), smollm.study()), ids=lambda study: study.name)
def test_arms_after_the_anchor_share_start_optimizer_horizon_and_evaluation(study):
    arms = [recipe for recipe in study.arms() if recipe.arm != study.anchor]
    shared = {
        field: {str(getattr(recipe, field)) for recipe in arms}
        for field in ("start", "optimizer", "horizon", "evaluation", "task", "precision")
    }
    assert all(len(values) == 1 for values in shared.values()), shared
    batches = {recipe.rollout.prompts * recipe.rollout.samples for recipe in arms}
    assert len(batches) == 1


def test_sft_matched_is_opd_but_for_its_objective():
    changed = differences(tiny.opd().identity(), tiny.sft_matched().identity())
    assert {line.split(":")[0].split(".")[0] for line in changed} == {"arm", "objective"}
    assert vars(tiny.sft_matched().objective)["stream"] == "clean"
    assert tiny.sft_matched().start == FinalOf(recipe="tiny.sft")


def test_the_teacher_learns_the_arms_task_from_the_base():
    teacher = vars(tiny.opd().objective)["teacher"]
    assert find_recipe(teacher.recipe).start == find_recipe("tiny.sft").start == FinalOf(recipe="tiny.base", seed=0)
    assert find_recipe(teacher.recipe).task == tiny.opd().task
    # The teacher's gate is above all an arm may start from.
    assert find_recipe(teacher.recipe).horizon.gate.low > tiny.sft().horizon.gate.high


def test_tiny_evaluates_on_enough_problems():
    for recipe in every(tiny.study()):
        # A standard error of 0.03 or less at any accuracy.
        assert recipe.evaluation.problems >= 256
        assert set(recipe.evaluation.temperatures) == {0.0, 1.0}
    gates = [recipe.horizon.gate for recipe in every(tiny.study()) if recipe.horizon.gate]
    assert all(gate.low < gate.high for gate in gates) and len(set(gates)) == 3, "base, teacher and anchor"


def test_tiny_answers_fit_their_rollouts():
    for recipe in every(tiny.study()):
        task = build(recipe.task, None)
        steps = recipe.task.options["operations"]
        assert 6 * steps + 2 + 1 <= recipe.rollout.max_new_tokens  # `7+8=5;` a step, `#8`, EOS
        assert task.eos < recipe.rollout.max_new_tokens


def test_smollm_teaches_itself_from_the_privileged_prompt():
    assert [recipe.arm for recipe in smollm.study().arms()] == ["sft", "opd", "rlvr"]
    assert smollm.opd().objective == Opd(teacher=None)
    assert {vars(recipe.start)["ref"] for recipe in smollm.study().arms()} == {smollm.study().weights}


def test_what_is_unknown_is_answered_with_what_is_known():
    with pytest.raises(ValueError, match=r"unknown study 'tyni'; known: tiny, smollm, qwen3-8b"):
        find_study("tyni")
    with pytest.raises(ValueError, match=r"unknown recipe 'tiny\.odp'; study tiny has: .*tiny\.base.*tiny\.opd"):
        find_recipe("tiny.odp")
    with pytest.raises(ValueError, match=r"study tiny has no suite 'extra'; it has: core, objectives"):
        tiny.study().arms("extra")


def test_every_snapshot_lies_within_the_horizon():
    for study in list_studies().values():
        for recipe in every(study):
            steps = recipe.horizon.snapshot_steps()
            assert list(steps) == sorted(set(steps))
            assert all(0 < step <= recipe.horizon.steps for step in steps)


def test_fingerprints_differ_between_recipes_and_not_between_calls():
    recipes = [recipe for study in list_studies().values() for recipe in every(study)]
    assert len({recipe.fingerprint() for recipe in recipes}) == len(recipes)
    again = [recipe for study in list_studies().values() for recipe in every(study)]
    assert [recipe.fingerprint() for recipe in recipes] == [recipe.fingerprint() for recipe in again]
    assert dataclasses.replace(recipes[0]) == recipes[0]


def test_studies_are_listed_without_anything_heavy():
    code = "import sys; from pipelines.studies.catalog import list_studies; list_studies(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "ray", "polars", "dagster", "vllm"} & set(loaded)
