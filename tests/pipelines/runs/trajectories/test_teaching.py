"""The teacher that scores and the teacher that draws are one model, rounded to bf16 whatever the student is."""

import pytest
import torch

from opd_ops.recipe import FinalOf, Opd, Precision, Rollout, Teacher
from pipelines.runs.resources.placement import Placement, Spot
from pipelines.runs.trajectories import starts, teaching
from pipelines.runs.trajectories.run import TrainingRun
from tests.pipelines.runs.mini import TASK

TEACHER = Opd(teacher=FinalOf(recipe="mini.teacher", seed=0))
DRAWN = Rollout(prompts=2, samples=2, max_new_tokens=6, source=Teacher())


@pytest.fixture
def assembled(monkeypatch):
    """The models that are assembled for teaching from now on."""
    found, real = [], teaching.assemble
    monkeypatch.setattr(teaching, "assemble", lambda *a, **k: found.append(real(*a, **k)) or found[-1])
    return found


def build(store, recipe):
    student = starts.load(store, recipe.start, 0, TASK)
    teacher = teaching.source(store, recipe.objective, student, 0, TASK)
    return teaching.build(store, recipe, 0, student, teacher, Placement(Spot()))


def test_scoring_and_drawing_share_one_model(arm, grown, assembled):
    scorer, engine = build(grown, arm("opd", rollout=DRAWN))
    assert len(assembled) == 1
    assert engine is not None and engine.model is assembled[0] is vars(scorer)["model"]
    assert not any(p.requires_grad for p in engine.model.parameters())


def test_a_teacher_that_only_scores_draws_nothing(arm, grown, assembled):
    _, engine = build(grown, arm("opd"))
    assert engine is None and len(assembled) == 1


@pytest.mark.parametrize("precision", [Precision(), Precision(weights="fp32")])
def test_a_teacher_is_served_rounded_to_bf16(precision, arm, grown, assembled):
    build(grown, arm("opd", precision=precision))
    weights = starts.load(grown, TEACHER.teacher, 0, TASK).weights
    for name, parameter in assembled[0].named_parameters():
        assert torch.equal(parameter, weights[name].bfloat16().float())
    assert any(not torch.equal(w, w.bfloat16().float()) for w in weights.values())


def test_a_run_on_its_teachers_responses_trains(arm, seeded, assembled):
    store = seeded("pre", "teacher")
    run = TrainingRun(store, arm("opd", rollout=DRAWN), 0, {})
    assert run.work(2).step == 2 and len(assembled) == 1
    assert vars(run.trainer.teacher_engine)["model"] is assembled[0]
