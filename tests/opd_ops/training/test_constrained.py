"""Trainers of a confined run, of a snapshot's masters and of kept moments; and what a failed step leaves behind."""

import dataclasses
import json
from typing import Any

import pytest
import torch

from opd_ops.recipe import AdamW, Constraint, Opd, Precision, Random, SnapshotOf, Weights
from opd_ops.training import student
from opd_ops.training.constraint import confined_names, stored_bases
from opd_ops.training.optimizer import Moments
from opd_ops.training.subspace import Subspace

SIDES, MODES = ("right", "left", "both"), ("gradient", "update", "compressed")
NAMES = ("sft", "opd", "opd-pg", "rlvr", "mix")
# A large eps makes the update smooth in the gradient, so that float noise in a tiny gradient cannot flip its sign.
SMOOTH = AdamW(learning_rate=0.1, eps=1.0, weight_decay=0.1, warmup=0, clip=0.5)


@pytest.fixture
def bases(weights):
    """bases(constraint): random ones."""

    def make(constraint):
        generator, found = torch.Generator().manual_seed(5), {}
        start = weights(0)[1]
        for name in confined_names(constraint, start):
            parts = {}
            for part, size in zip(("left", "right"), start[name].shape, strict=True):
                if constraint.side in (part, "both"):
                    columns = torch.randn(size, constraint.rank, generator=generator, dtype=torch.float64)
                    parts[part] = torch.linalg.qr(columns).Q
            found[name] = Subspace(**parts)
        return found

    return make


@pytest.fixture
def confined(trainer, bases):
    """confined(name, side, mode, others, spaces=None, **changes): a trainer with a constraint of rank 4."""

    def make(name, side="right", mode="update", others="free", spaces=None, **changes):
        constraint = Constraint(basis=Random(), rank=4, side=side, mode=mode, others=others)
        return trainer(name, constraint=constraint, given={"bases": spaces or bases(constraint)}, **changes)

    return make


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("mode", ["update", "compressed"])
def test_nothing_leaks_through_warm_up_clipping_decay_and_a_resume(mode, side, confined):
    spec = AdamW(learning_rate=1e-3, weight_decay=0.1, warmup=3, clip=0.1, schedule="cosine")
    run = confined("sft", side, mode, optimizer=spec)
    rows = [run.advance().row for _ in range(5)]
    tensors, facts = run.state()
    tensors, facts = {key: w.clone() for key, w in tensors.items()}, json.loads(json.dumps(facts))
    again = confined("sft", side, mode, spaces=stored_bases(tensors), optimizer=spec)
    again.restore(tensors, facts, 5)
    rows += [again.advance().row for _ in range(5)]
    assert [row["step"] for row in rows] == list(range(1, 11))
    for row in rows:
        assert 0 < row["leaked_step"] < 1e-6 and 0 < row["leaked"] < 1e-6
        assert 0 < row["removed"] < 1
        assert row["grad_norm"] > 0.1  # so that it is clipped


def test_in_gradient_mode_the_leak_is_reported_as_it_is(confined, trainer):
    run = confined("sft", "right", "gradient")
    row = run.advance().row
    assert row["leaked_step"] == row["leaked"] > 0.05
    assert not {"leaked", "leaked_step", "removed"} & trainer("sft").advance().row.keys()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_the_micro_batch_split_does_not_change_a_confined_step(name, mode, confined, split):
    whole = confined(name, "both", mode, optimizer=SMOOTH)
    one = whole.advance().row
    for rows in (1, 5):
        parts = split(confined(name, "both", mode, optimizer=SMOOTH), rows)
        other = parts.advance().row
        # Gradients of parts are added in another order; 1e-5 is a hundred ulp of fp32.
        for column in one.keys() - {"leaked", "leaked_step"}:
            value = one[column]
            assert other[column] == (value if value is None else pytest.approx(value, rel=1e-5, abs=1e-6)), column
        for key, w in whole.weights().items():
            assert torch.allclose(w, parts.weights()[key], rtol=0, atol=1e-6), key


@pytest.mark.parametrize("others", ["free", "frozen"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["opd", "mix"])
def test_a_restored_confined_trainer_goes_on_bit_for_bit(name, mode, others, confined):
    through = confined(name, "both", mode, others)
    for _ in range(3):
        through.advance()
    tensors, facts = through.state()
    state, facts = {key: w.clone() for key, w in tensors.items()}, json.loads(json.dumps(facts))
    resumed = confined(name, "both", mode, others, spaces=stored_bases(state))
    resumed.advance()  # a state of its own, which the restored one must replace
    resumed.restore(state, facts, 3)
    for _ in range(2):
        assert resumed.advance() == through.advance()
    for key, w in through.optimizer.state().items():
        assert torch.equal(w, resumed.optimizer.state()[key]), key


@pytest.mark.parametrize("mode", MODES)
def test_frozen_weights_do_not_move_and_do_not_count_in_the_norm(mode, confined, trainer):
    run = confined("sft", "right", mode, "frozen")
    plain = trainer("sft")
    spaces, before = run.optimizer.confined.bases, {key: w.clone() for key, w in run.weights().items()}
    plain.optimizer.clip = lambda: 0.0
    plain._backward(plain._bind_terms(1, *plain._draw(1)[1:]))
    gradients = plain.optimizer.gradients["sft"]
    norm = sum(float(space.project(gradients[key]).square().sum()) for key, space in spaces.items()) ** 0.5
    assert run.advance().row["grad_norm"] == pytest.approx(norm, rel=1e-5)
    run.advance()
    for key, w in run.weights().items():
        assert torch.equal(w, before[key]) == (key not in spaces), key


def test_recomputed_activations_give_the_same_bits_under_frozen_embeddings(confined):
    from opd_ops.recipe import Resources

    plain = confined("opd", others="frozen")
    frugal = confined("opd", others="frozen", resources=Resources(checkpoint_activations=True))
    for _ in range(2):
        assert plain.advance() == frugal.advance()


def test_a_constraint_without_its_basis_is_refused(trainer):
    with pytest.raises(ValueError, match=r"the constraint has no basis for .*q_proj\.weight \(7 lacking\)"):
        trainer("sft", constraint=Constraint(basis=Random(), rank=4))


def test_a_snapshots_masters_are_not_rounded(trainer, weights):
    run = trainer("sft", start=SnapshotOf(recipe="test.other", step=3))
    start = weights(0)[1]
    assert all(torch.equal(w, start[key]) for key, w in run.weights().items())
    for key, parameter in run.model.named_parameters():
        assert torch.equal(parameter, start[key].bfloat16().float())


def test_kept_moments_continue_the_run_that_kept_them(trainer, monkeypatch):
    """With the draws of the source's later steps, at a constant rate, the source itself goes on bit for bit."""
    from opd_ops.training import batches

    steady = AdamW(learning_rate=1e-3, weight_decay=0.1, warmup=0)
    through = trainer("sft", optimizer=steady)
    for _ in range(3):
        through.advance()
    weights = {key: w.clone() for key, w in through.weights().items()}
    moments = through.optimizer.moments()
    moments = Moments(steps=moments.steps, tensors={key: x.clone() for key, x in moments.tensors.items()})
    begin = SnapshotOf(recipe="test.sft", step=3, moments="kept")
    kept, reset = (trainer("sft", optimizer=steady, start=begin, given={"moments": given}) for given in (moments, None))
    for run in (kept, reset):
        for key, w in run.weights().items():
            w.copy_(weights[key])
        run.optimizer._serve()
    rows = [through.advance().row for _ in range(2)]
    drawn: Any = batches.demonstrations
    monkeypatch.setattr(batches, "demonstrations", lambda *a: drawn(*a[:-1], a[-1] + 3))
    for row in rows:
        assert kept.advance().row == row | {"step": row["step"] - 3}
        reset.advance()
    assert all(torch.equal(w, through.weights()[key]) for key, w in kept.weights().items())
    assert kept.optimizer.steps == through.optimizer.steps == 5 and kept.step == 2
    assert not all(torch.equal(w, through.weights()[key]) for key, w in reset.weights().items())
    tensors, facts = kept.state()
    again = trainer("sft", optimizer=steady, start=begin)
    again.restore({key: w.clone() for key, w in tensors.items()}, json.loads(json.dumps(facts)), 2)
    assert again.advance() == kept.advance()


def test_moments_of_another_shape_are_refused(confined, trainer):
    source = trainer("sft")
    source.advance()
    with pytest.raises(
        ValueError, match=r"exp_avg of .*q_proj\.weight is of shape \(32, 32\), and \(32, 4\) is wanted"
    ):
        confined("sft", mode="compressed").optimizer.adopt(source.optimizer.moments())
    with pytest.raises(ValueError, match=r"exp_avg of model\.embed_tokens\.weight is lacking"):
        frozen = confined("sft", others="frozen")
        frozen.advance()
        trainer("sft").optimizer.adopt(frozen.optimizer.moments())


@pytest.mark.parametrize("where", ["_bind_terms", "second micro-batch", "backward", "combine"])
@pytest.mark.parametrize("name", ["opd", "rlvr"])
def test_a_step_that_fails_leaves_no_gradient_behind(name, where, trainer, monkeypatch):
    run, untouched = trainer(name), trainer(name)
    for each in (run, untouched):
        each.advance()

    def fail(*_):
        raise KeyboardInterrupt

    handle = None
    with monkeypatch.context() as patch:
        if where == "_bind_terms":
            patch.setattr(run, "_bind_terms", fail)
        elif where == "second micro-batch":
            logits, calls = student._logits, []
            patch.setattr(student, "_logits", lambda *given: fail() if calls else calls.append(1) or logits(*given))
        elif where == "backward":  # some parameters have their gradient by then
            handle = run.model.get_parameter("model.embed_tokens.weight").register_hook(fail)
        else:
            patch.setattr(run.optimizer, "combine", fail)
        with pytest.raises(KeyboardInterrupt):
            run.advance()
        if handle is not None:
            handle.remove()
    assert run.optimizer.gradients == {}
    assert all(p.grad is None for p in run.model.parameters())
    assert all(w.grad is None for w in run.weights().values())
    assert run.advance() == untouched.advance()
    assert all(torch.equal(w, untouched.weights()[key]) for key, w in run.weights().items())


def test_differentiating_that_fails_leaves_no_gradient_either(trainer, monkeypatch):
    run, untouched = trainer("opd"), trainer("opd")
    responses = trainer("opd").advance().responses
    with monkeypatch.context() as patch:
        patch.setattr(run.optimizer, "combine", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.differentiate(responses)
    assert run.advance() == untouched.advance()


@pytest.mark.parametrize("estimator", ["full", "policy-gradient", "k2"])
def test_a_token_that_the_teacher_does_not_share_is_named(estimator, trainer):
    """Past the shared vocabulary a student's embedding is padding; here it is 6 of the 8 tokens."""
    run = trainer(Opd(teacher=Weights(ref="other"), estimator=estimator))
    run.teacher.vocabulary = 6
    before = {key: w.clone() for key, w in run.weights().items()}
    with pytest.raises(ValueError, match=r"^a response holds token [67], and student and teacher share the 6 tokens"):
        run.advance()
    assert run.step == 0 and all(torch.equal(w, before[key]) for key, w in run.weights().items())
    shared = [dataclasses.replace(r, tokens=[t % 6 for t in r.tokens]) for r in run.drawing.responses(1, run.engine)]
    assert set(run.differentiate(shared)[0]) == {"opd"}


def test_a_confined_run_serves_what_its_precision_says(confined):
    run = confined("sft", precision=Precision(compute="bf16"))
    run.advance()
    for key, parameter in run.model.named_parameters():
        assert torch.equal(parameter, run.weights()[key].bfloat16())
