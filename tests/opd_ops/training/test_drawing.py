"""Where a step's responses come from, and what is kept of them."""

import json
from dataclasses import replace

import pytest
import torch

from opd_ops.recipe import Correction, Mix, Opd, Replay, Rlvr, Rollout, Student, Teacher, Weights
from opd_ops.rollout.hf import HfEngine
from opd_ops.training.drawing import Response

SHAPE = Rollout(prompts=4, samples=2, max_new_tokens=4)
FULL = Opd(teacher=Weights(ref="x"))
SAMPLED = replace(FULL, estimator="policy-gradient")


def tokens(responses):
    return [(r.prompt, r.tokens) for r in responses]


@pytest.mark.parametrize("step", [1, 2])
def test_arms_of_a_seed_see_the_same_prompts(step, trainer):
    arms = [
        trainer("opd", rollout=SHAPE),
        trainer("opd-privileged", arm="another-name", rollout=SHAPE),
        trainer("rlvr", rollout=SHAPE),
        trainer(FULL, teacher=2, rollout=SHAPE),
    ]
    drawn = [tokens(arm._draw(step)[0]) for arm in arms]
    # One start, so the responses agree too.
    assert all(batch == drawn[0] for batch in drawn[1:])
    assert drawn[0] != tokens(trainer("opd", seed=1, rollout=SHAPE)._draw(step)[0])
    arms[0].drawing.finish_step()
    assert drawn[0] != tokens(arms[0]._draw(step + 1)[0])


def test_responses_are_grouped_by_problem_and_carry_their_log_probabilities(trainer):
    run = trainer("rlvr", rollout=SHAPE)
    responses, batch, _ = run._draw(1)
    assert [(r.prompt_id, r.sample_id) for r in responses] == [(p, s) for p in range(4) for s in range(2)]
    assert batch.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    expected = run.logprobs([r.prompt for r in responses], [r.tokens for r in responses])
    for row, (response, found) in enumerate(zip(responses, expected, strict=True)):
        assert response.logprob == pytest.approx(found, abs=1e-5)
        assert batch.behaviour[row][batch.mask[row] == 1].tolist() == pytest.approx(response.logprob)
        assert len(response.tokens) == 4 or not response.truncated


def test_truncated_responses_can_be_left_out_of_the_loss(trainer):
    responses, batch, behind = trainer("opd-privileged", rollout=replace(SHAPE, mask_truncated=True))._draw(1)
    truncated = torch.tensor([r.truncated for r in responses])
    assert truncated.any() and not truncated.all()
    assert torch.equal(batch.mask.any(1), ~truncated)
    assert torch.equal(batch.mask, behind.mask)


def test_a_lagged_student_draws_ahead_with_the_weights_of_then(trainer):
    run = trainer(FULL, rollout=replace(SHAPE, source=Student(lag=2)))
    fresh = trainer(FULL, rollout=SHAPE)
    seen = [run.advance() for _ in range(6)]
    assert [{r.version for r in done.responses} for done in seen] == [{0}, {0}, {0}, {1}, {2}, {3}]
    assert [done.row["staleness"] for done in seen] == [0, 1, 2, 2, 2, 2]
    assert tokens(seen[0].responses) == tokens(fresh.advance().responses)  # the first step is on policy
    assert all({r.step for r in done.responses} == {done.row["step"]} for done in seen)


def test_what_waits_survives_a_restart(trainer):
    recipe = {"rollout": replace(SHAPE, source=Student(lag=3))}
    through = trainer(FULL, **recipe)
    for _ in range(2):
        through.advance()
    tensors, facts = through.state()
    state = {name: tensor.clone() for name, tensor in tensors.items()}
    resumed = trainer(FULL, **recipe)
    resumed.restore(state, json.loads(json.dumps(facts)), 2)
    for _ in range(5):
        assert resumed.advance() == through.advance()
    assert all(torch.equal(w, resumed.weights()[name]) for name, w in through.weights().items())


def test_the_last_steps_draw_nothing_that_is_never_trained_on(trainer):
    run = trainer(FULL, rollout=replace(SHAPE, source=Student(lag=4)))
    for _ in range(run.recipe.horizon.steps):
        run.advance()
    assert run.drawing.state() == []


def test_an_importance_weight_of_one_is_no_correction(trainer):
    """At step 1 the lagged student is today's, so that corrected and uncorrected steps agree."""
    lagged = replace(SHAPE, source=Student(lag=2))
    corrected = trainer(SAMPLED, rollout=replace(lagged, correction=Correction()))
    plain = trainer(replace(SAMPLED, divergence="none"), rollout=lagged)
    one, other = corrected.advance().row, plain.advance().row
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
    assert one["ess"] == pytest.approx(1, abs=1e-6) and one["clipped"] == 0
    later = [corrected.advance().row for _ in range(4)][-1]
    assert later["ess"] < 1 - 1e-9


def test_clipping_acts_on_a_lagged_student_alone(trainer):
    fast = {"optimizer": trainer("rlvr").recipe.optimizer.__class__(learning_rate=0.05, warmup=0)}
    for lag, moved in ((0, False), (3, True)):
        rollout = replace(SHAPE, samples=4, source=Student(lag=lag))
        run = trainer(Rlvr(clip=(0.2, 0.28)), rollout=rollout, **fast)
        clipped = [run.advance().row["clipped"] for _ in range(5)]
        assert (max(clipped) > 0) == moved


@pytest.mark.parametrize("objective", [FULL, Opd(teacher=None)], ids=["named", "privileged"])
def test_the_teacher_draws_from_the_prompts_it_reads(objective, trainer, model):
    engine = HfEngine(model, shared=True)
    engine.sync({}, 0)
    asked = []
    generate = engine.generate
    engine.generate = lambda requests, *a, **k: asked.extend(r.prompt for r in requests) or generate(requests, *a, **k)
    run = trainer(objective, rollout=replace(SHAPE, source=Teacher()), given={"teacher_engine": engine})
    done = run.advance()
    responses = done.responses
    assert done.row["staleness"] is None
    read = [r.privileged if objective.teacher is None else r.prompt for r in responses]
    assert asked == read
    with pytest.raises(ValueError, match="samples from its teacher, and no engine of it was given"):
        trainer(objective, rollout=replace(SHAPE, source=Teacher()))


def test_a_replay_trains_on_the_rows_another_run_kept(trainer):
    source = trainer(FULL, rollout=SHAPE)
    kept = {}
    for step in (1, 2):
        kept[step] = [vars(r) | {"engine": "hf"} for r in source.advance().responses]
    replay = trainer(
        replace(FULL, divergence="forward-kl"),
        rollout=replace(SHAPE, source=Replay(recipe="test.opd")),
        given={"stored": kept.__getitem__},
    )
    for step in (1, 2):
        done = replay.advance()
        assert [vars(r) | {"engine": "hf"} for r in done.responses] == kept[step]
    with pytest.raises(ValueError, match=r"replays test\.opd, whose rollouts were not given"):
        trainer(FULL, rollout=replace(SHAPE, source=Replay(recipe="test.opd")))


def test_rms_mixing_divides_each_term_by_its_own_size(trainer):
    raw, scaled = (trainer(Mix(alpha=0.25, opd=SAMPLED, scale=scale)).advance().row for scale in ("raw", "rms"))
    for column in ("opd_rms", "rlvr_rms", "opd_grad_norm", "rlvr_grad_norm", "grad_cosine"):
        assert scaled[column] == pytest.approx(raw[column], rel=1e-6)
    assert -1 <= raw["grad_cosine"] <= 1
    for row, coefficients in ((raw, (0.25, 0.75)), (scaled, (0.25 / raw["opd_rms"], 0.75 / raw["rlvr_rms"]))):
        a, b = coefficients[0] * row["opd_grad_norm"], coefficients[1] * row["rlvr_grad_norm"]
        assert row["grad_norm"] ** 2 == pytest.approx(a * a + b * b + 2 * a * b * row["grad_cosine"], rel=1e-4)


def test_alpha_at_its_ends_is_one_objective(trainer):
    sequence = replace(SAMPLED, normaliser="sequence")
    shape = {"rollout": replace(SHAPE, samples=4)}
    for alpha, alone in ((1.0, sequence), (0.0, Rlvr())):
        mixed, pure = trainer(Mix(alpha=alpha, opd=sequence), **shape), trainer(alone, **shape)
        for _ in range(2):
            assert mixed.advance().row["grad_norm"] == pytest.approx(pure.advance().row["grad_norm"], rel=1e-6)


def test_a_response_is_plain_data():
    row = {"step": 1, "prompt_id": 0, "sample_id": 0, "prompt": [1], "privileged": None, "answer": "3"}
    row |= {"tokens": [4, 2], "logprob": [-0.5, -0.1], "truncated": False, "version": 0, "reward": 1.0}
    assert vars(Response(**json.loads(json.dumps(row)))) == row
