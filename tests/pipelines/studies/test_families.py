"""Families that finished runs are evaluated on: they exist, fit the models, and are other problems than the task's."""

import numpy as np
import pytest

from opd_ops.tasks.registry import build
from opd_ops.training.batches import HELD_OUT
from pipelines.studies import tiny
from pipelines.studies.catalog import list_studies
from pipelines.studies.families import EVALUATION, FAMILIES, study_families

TINY = list(FAMILIES["tiny"].items())


def problems(spec):
    rng = np.random.default_rng((0, HELD_OUT))
    return build(spec, None).problems("held_out", EVALUATION.problems, rng)


def test_families_are_of_studies_and_of_their_tasks():
    known = list_studies()
    for study, found in FAMILIES.items():
        arms = known[study].every_arm()
        assert {family.task.name for family in found.values()} == {recipe.task.name for recipe in arms}
        assert all(family.task not in [recipe.task for recipe in arms] for family in found.values())
    with pytest.raises(ValueError, match=r"study qwen3-8b has no other families of its task; with some: tiny"):
        study_families("qwen3-8b")


@pytest.mark.parametrize(("name", "family"), TINY)
def test_a_whole_answer_fits_the_room_and_the_window(name, family):
    window = tiny.ARCHITECTURE.max_position_embeddings
    (prompt, answer), *_ = build(family.task, None).demonstrations("clean", 1, np.random.default_rng(0))
    longest = max(len(problem.prompt) for problem in problems(family.task))
    assert longest == len(prompt) and len(answer) <= family.max_new_tokens
    assert longest + family.max_new_tokens <= window


def test_prompts_are_none_of_those_trained_on_and_tags_ask_the_same_questions():
    trained = {tuple(problem.prompt) for problem in problems(tiny.opd().task)}
    for _, family in TINY:
        assert not trained & {tuple(problem.prompt) for problem in problems(family.task)}
    same = [[problem.answer for problem in problems(study_families("tiny")[name].task)] for name in ("tag-C", "tag-F")]
    assert same[0] == same[1] == [problem.answer for problem in problems(tiny.opd().task)]
