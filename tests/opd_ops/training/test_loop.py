"""One step against a reference that knows no padding, batches or micro-batches; then what a trainer guarantees."""

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch

from opd_ops.models import assemble
from opd_ops.recipe import AdamW, Evaluation, FinalOf, Opd, Precision, Rlvr, Sft
from opd_ops.rollout.hf import HfEngine
from opd_ops.training.inputs import InitialState
from opd_ops.training.loop import Diverged, Trainer, ZeroAdvantage

NAMES = ("sft", "opd", "opd-privileged", "opd-pg", "rlvr", "mix")
# A large eps makes the update smooth in the gradient, so that float noise in a tiny gradient cannot flip its sign.
SMOOTH = AdamW(learning_rate=0.1, eps=1.0, weight_decay=0.1, warmup=0, clip=0.5)


def response_logits(model, prompt, response):
    """Logits that predict the response, from one sequence alone with the model's own mask and positions."""
    return model(torch.tensor([[*prompt, *response]]), use_cache=False).logits[0, len(prompt) - 1 : -1]


def chosen(model, rollout):
    """Log-probabilities of the response's own tokens."""
    logits = response_logits(model, rollout.prompt, rollout.tokens)
    return logits.log_softmax(-1)[range(len(rollout.tokens)), rollout.tokens]


def reference_loss(trainer, model, teacher, step):
    """The step's loss as its formula, one sequence after the other."""
    recipe, task, spec = trainer.recipe, trainer.task, trainer.recipe.rollout
    if isinstance(recipe.objective, Sft):
        pairs = task.demonstrations("any", spec.prompts, np.random.default_rng((trainer.seed, 2, step)))
        total = sum(
            torch.nn.functional.cross_entropy(response_logits(model, p, r), torch.tensor(r), reduction="sum")
            for p, r in pairs
        )
        return total / sum(len(r) for _, r in pairs)
    engine = HfEngine(model, shared=True)
    engine.sync({}, 0)
    rollouts = trainer.drawing.responses(step, engine)
    if isinstance(recipe.objective, Opd) and recipe.objective.estimator == "full":
        total = 0.0
        for rollout in rollouts:
            log_s = response_logits(model, rollout.prompt, rollout.tokens).log_softmax(-1)
            prompt = rollout.prompt if recipe.objective.teacher else rollout.privileged
            log_t = response_logits(teacher, prompt, rollout.tokens).detach().log_softmax(-1)
            total = total + (log_s.exp() * (log_s - log_t)).sum()
        return total / sum(len(rollout.tokens) for rollout in rollouts)
    rewards = np.array([rollout.reward for rollout in rollouts]).reshape(spec.prompts, spec.samples)
    group = ((rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, keepdims=True) + 1e-6)).flatten()
    alpha = {"opd": 1.0, "rlvr": 0.0, "mix": 0.25}[recipe.objective.kind]
    assert alpha == 1 or group.any()
    total = 0.0
    for rollout, reward in zip(rollouts, group, strict=True):
        log_s = chosen(model, rollout)
        advantage = (1 - alpha) * reward
        if alpha:
            advantage = advantage - alpha * (log_s - chosen(teacher, rollout)).detach()
        share = 1 / sum(len(r.tokens) for r in rollouts) if alpha == 1 else 1 / len(rollouts) / len(rollout.tokens)
        total = total - (advantage * (log_s - log_s.detach())).sum() * share
    return total


@pytest.mark.parametrize("name", NAMES)
def test_a_step_equals_the_formula_taken_sequence_by_sequence(name, trainer, weights):
    run = trainer(name, optimizer=SMOOTH)
    build: Any = assemble
    model = build(*weights(0), torch.float32)
    teacher = build(*weights(0 if name == "opd-privileged" else 1), torch.float32)
    loss = reference_loss(run, model, teacher, 1)
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    loss = loss.detach()
    gradients = {key: p.grad.double() for key, p in model.named_parameters()}
    norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
    before = {key: w.double() for key, w in run.weights().items()}
    row = run.advance().row
    # Padding changes the order of fp32 sums.
    if name in ("sft", "opd", "opd-privileged"):  # the value of a policy gradient's loss means nothing
        assert row["loss"] == pytest.approx(float(loss), rel=1e-5, abs=1e-6)
    assert row["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    for key, w in run.weights().items():
        g = gradients[key] * min(1.0, 0.5 / float(norm))
        expected = before[key] * (1 - 0.1 * 0.1 * (w.ndim > 1)) - 0.1 * g / (g.abs() + 1.0)
        assert torch.allclose(w.double(), expected, rtol=0, atol=1e-6), key


@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("name", NAMES)
def test_the_micro_batch_split_does_not_change_the_step(name, rows, trainer, split):
    whole, parts = trainer(name, optimizer=SMOOTH), split(trainer(name, optimizer=SMOOTH), rows)
    one, other = whole.advance().row, parts.advance().row
    # Gradients of parts are added in another order; 1e-5 is a hundred ulp of fp32.
    for column, value in one.items():
        assert other[column] == (value if value is None else pytest.approx(value, rel=1e-5, abs=1e-6)), column
    for key, w in whole.weights().items():
        assert torch.allclose(w, parts.weights()[key], rtol=0, atol=1e-6), key


def test_a_teacher_equal_to_the_student_moves_nothing(trainer):
    run = trainer("opd", teacher=0, optimizer=AdamW(learning_rate=1e-3, eps=1.0))
    masters = {key: w.clone() for key, w in run.weights().items()}
    served = {key: w.clone() for key, w in run.model.state_dict().items()}
    row = run.advance().row
    assert (row["loss"], row["kl"]) == (0.0, 0.0)
    assert row["grad_norm"] < 1e-6  # softmax rows sum to 1 only to an ulp
    for key, w in run.weights().items():
        assert torch.allclose(w, masters[key], rtol=0, atol=1e-3 * 1e-6)
    # A weight of zero (the PAD row) has no rounding to absorb even this.
    assert all(
        torch.equal(w[served[key] != 0], served[key][served[key] != 0]) for key, w in run.model.state_dict().items()
    )


def test_another_teacher_gives_another_step(trainer):
    one, other = (trainer("opd", teacher=t).advance().row for t in (1, 2))
    assert one["tokens"] == other["tokens"] and one["kl"] == pytest.approx(one["loss"], rel=1e-6)
    assert one["kl"] > 0
    assert one["grad_norm"] != other["grad_norm"]


def test_the_teacher_never_moves(trainer):
    run = trainer("opd")
    model = run.teacher.model
    before = {key: w.clone() for key, w in model.state_dict().items()}
    for _ in range(2):
        run.advance()
    assert all(torch.equal(w, before[key]) for key, w in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_flat_groups_give_no_gradient(reward, trainer):
    run = trainer("rlvr", optimizer=AdamW(learning_rate=1e-2))
    run.drawing.scores = lambda answered: [reward] * len(answered)
    before = {key: w.clone() for key, w in run.weights().items()}
    row = run.advance().row
    assert (row["loss"], row["grad_norm"], row["flat_groups"], row["reward"]) == (0.0, 0.0, 1.0, reward)
    assert all(torch.equal(w, before[key]) for key, w in run.weights().items())


def poison(run, how):
    norm = run.model.get_submodule("model.norm")
    if how == "loss":  # of the training forward alone: rollouts do not pass here
        return norm.register_forward_hook(lambda module, args, output: output * float("nan")).remove
    return norm.weight.register_hook(lambda gradient: gradient * float("inf")).remove


@pytest.mark.parametrize("how", ["loss", "gradient"])
@pytest.mark.parametrize("name", NAMES)
def test_a_non_finite_step_is_named_and_leaves_no_trace(name, how, trainer):
    run, untouched = trainer(name, seed=3), trainer(name, seed=3)
    for each in (run, untouched):
        each.advance()
    state = {key: w.clone() for key, w in run.optimizer.state().items()}
    heal = poison(run, how)
    term = run.recipe.objective.kind if run.recipe.objective.kind != "mix" else "opd"
    what = f"the {term} loss is nan" if how == "loss" else "the gradient norm is (inf|nan)"
    with pytest.raises(Diverged, match=rf"test\.{run.recipe.objective.kind} seed 3 step 2: {what}"):
        run.advance()
    heal()
    assert run.step == 1
    assert all(torch.equal(w, state[key]) for key, w in run.optimizer.state().items())
    facts = run.state()[1]
    run.restore(state, facts | {"pending": []}, 1)  # serves the masters again
    assert run.advance() == untouched.advance()


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_trainer_goes_on_bit_for_bit(name, trainer):
    through = trainer(name)
    for _ in range(3):
        through.advance()
    tensors, facts = through.state()
    state = {key: w.clone() for key, w in tensors.items()}
    facts = json.loads(json.dumps(facts))
    resumed = trainer(name)
    resumed.advance()  # a state of its own, which the restored one must replace
    resumed.restore(state, facts, 3)
    for _ in range(2):
        assert resumed.advance() == through.advance()
    assert resumed.step == through.step == 5
    for key, w in through.optimizer.state().items():
        assert torch.equal(w, resumed.optimizer.state()[key]), key
    assert resumed.evaluate() == through.evaluate()


def test_evaluation_does_not_touch_training(trainer):
    plain, watched = trainer("rlvr"), trainer("rlvr")
    for _ in range(2):
        watched.evaluate()
        watched.evaluate(0.7)
        assert plain.advance() == watched.advance()
    assert all(torch.equal(w, watched.weights()[key]) for key, w in plain.weights().items())


def test_every_seed_arm_and_step_answers_the_same_held_out_problems(trainer):
    one, other = trainer("sft"), trainer("rlvr", seed=5)
    assert one.evaluator.problems == other.evaluator.problems
    assert one.evaluate() == other.evaluate()
    training = {tuple(p.prompt) for p in one.task.problems("train", 50, np.random.default_rng(0))}
    assert not training & {tuple(p.prompt) for p in one.evaluator.problems}


def test_accuracy_is_a_mean_over_problems_and_its_error_counts_problems(trainer, monkeypatch):
    run = trainer("sft", evaluation=Evaluation(problems=4, samples=2))
    greedy, sampled = [1, 0, 1, 1], [1, 1, 1, 0, 0, 0, 0, 1]
    scores = itertools.cycle([*greedy, *sampled])
    monkeypatch.setattr(run.drawing, "scores", lambda answered: [float(next(scores)) for _ in answered])
    cold, warm = run.evaluate()
    assert (cold["temperature"], cold["n"], cold["problems"], cold["samples"]) == (0.0, 4, 4, 1)
    assert (warm["temperature"], warm["n"], warm["problems"], warm["samples"]) == (1.0, 8, 4, 2)
    assert (cold["accuracy"], warm["accuracy"]) == (0.75, 0.5)
    assert cold["stderr"] == pytest.approx((3 / 4 * 1 / 4 / 3) ** 0.5)  # p (1 - p) / (n - 1)
    # Means by problem: 1, 1/2, 0, 1/2, of variance 1/6 with n - 1.
    assert warm["stderr"] == pytest.approx((1 / 6 / 4) ** 0.5)


def test_the_gates_reading_is_one_sample_at_its_temperature(trainer):
    (row,) = trainer("sft").evaluate(0.7)
    assert (row["step"], row["temperature"], row["n"], row["problems"], row["samples"]) == (0, 0.7, 8, 8, 1)


def test_truncated_responses_earn_nothing_and_are_counted(trainer, recipe, monkeypatch):
    run = trainer("rlvr", rollout=dataclasses.replace(trainer("rlvr").recipe.rollout, max_new_tokens=3))
    monkeypatch.setattr(run.task, "verify", lambda problem, response: 1.0)
    row = run.advance().row
    assert 0 < row["truncated"] < 1
    assert row["reward"] == pytest.approx(1 - row["truncated"])


def test_training_columns_say_what_a_step_did(trainer):
    sft, opd, sampled, rlvr, mix = (trainer(name).advance().row for name in ("sft", "opd", "opd-pg", "rlvr", "mix"))
    filled = lambda row: {column for column, value in row.items() if value is not None}
    always = {"step", "loss", "grad_norm", "tokens", "sequences", "learning_rate", "entropy"}
    rolled = always | {"reward", "truncated", "overtimes", "staleness", "mismatch_max", "mismatch_outside"}
    assert filled(sft) == always
    assert filled(sampled) == rolled | {"kl", "teacher_entropy"}
    assert filled(opd) == filled(sampled) | {"student_mass", "teacher_mass", "overlap"}
    assert filled(rlvr) == rolled | {"flat_groups"}
    apart = {f"{term}_{what}" for term in ("opd", "rlvr") for what in ("loss", "grad_norm", "rms")}
    assert filled(mix) == filled(sampled) | filled(rlvr) | apart | {"grad_cosine"}
    assert all(0 < row["entropy"] <= np.log(8) for row in (sft, opd, rlvr))
    assert all(row["mismatch_max"] < 1e-5 and row["staleness"] == 0 for row in (opd, sampled, rlvr, mix))
    assert sft["learning_rate"] == 0.5e-3  # the first of two warm-up steps


def test_positions_add_up_to_the_step(trainer):
    done = trainer("opd").advance()
    assert [row["position"] for row in done.positions] == list(range(len(done.positions)))
    for column in ("kl", "entropy", "teacher_mass"):
        total = sum(row[column] * row["tokens"] for row in done.positions)
        assert total / done.row["tokens"] == pytest.approx(done.row[column], rel=1e-9)
    assert sum(row["tokens"] for row in done.positions) == done.row["tokens"]


def test_sft_learns(trainer):
    run = trainer("sft", optimizer=AdamW(learning_rate=1e-2, warmup=0))
    losses = [run.advance().row["loss"] for _ in range(20)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_opd_without_a_usable_teacher_is_refused(trainer, recipe, task, weights, monkeypatch):
    named = recipe(Opd(teacher=FinalOf(recipe="test.other")))
    with pytest.raises(ValueError, match=r"test\.opd names the teacher .*test\.other.*none was given"):
        Trainer(named, 0, InitialState(*weights(0)), task)
    bare = task.problems
    plain = lambda *a: [dataclasses.replace(problem, privileged=None) for problem in bare(*a)]
    monkeypatch.setattr(task, "problems", plain)
    with pytest.raises(ValueError, match=r"test\.opd has no teacher, and task parity no privileged prompt"):
        Trainer(recipe(Opd(teacher=None)), 0, InitialState(*weights(0)), task, trainer("opd").teacher)


def test_flat_groups_for_too_many_steps_stop_the_run(trainer):
    run = trainer(Rlvr(flat_limit=3))
    run.drawing.scores = lambda answered: [1.0] * len(answered)
    for _ in range(2):
        run.advance()
    with pytest.raises(ZeroAdvantage, match=r"test\.rlvr seed 0 step 3: every group's rewards were equal for 3 steps"):
        run.advance()
    assert run.step == 2


def test_flat_groups_can_be_left_out_and_the_batch_says_so(trainer, task):
    flat_first = lambda answered: [float(i % 2) if i >= 4 else 1.0 for i, _ in enumerate(answered)]
    kept, dropped = (trainer(Rlvr(drop_flat=drop)) for drop in (False, True))
    kept.drawing.scores = dropped.drawing.scores = flat_first
    one, other = kept.advance().row, dropped.advance().row
    assert (one["sequences"], other["sequences"]) == (12, 8)
    assert one["flat_groups"] == other["flat_groups"] == pytest.approx(1 / 3)
    assert other["tokens"] < one["tokens"]
    # The flat group's gradient is zero either way; only the denominator differs.
    assert other["grad_norm"] == pytest.approx(one["grad_norm"] * 12 / 8, rel=1e-5)


def test_weights_that_are_no_numbers_are_found_when_drawing(trainer):
    run = trainer("opd")
    run.model.get_parameter("model.norm.weight").data.fill_(float("nan"))
    with pytest.raises(Diverged, match=r"test\.opd seed 0 step 1: .*not numbers"):
        run.advance()


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_gradient_does_not_depend_on_the_micro_batch_split(name, trainer):
    """To 1e-6 of its norm: fp32 sums in another order. The same holds for padding, which the split changes."""
    responses = trainer(name).advance().responses
    whole, wanted = trainer(name, precision=Precision(micro_batch=64)).differentiate(responses)
    norm = torch.cat([g.flatten() for g in wanted.values()]).double().norm()
    for rows in (1, 3, 5):
        losses, found = trainer(name, precision=Precision(micro_batch=rows)).differentiate(responses)
        apart = torch.cat([(found[key].double() - g.double()).flatten() for key, g in wanted.items()]).norm()
        assert float(apart / norm) < 1e-6
        for term, loss in losses.items():
            assert loss == pytest.approx(whole[term], rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", NAMES[1:])
def test_differentiating_moves_nothing(name, trainer):
    run, untouched = trainer(name), trainer(name)
    responses = untouched.advance().responses
    run.differentiate(responses)
    untouched = trainer(name)
    assert run.advance() == untouched.advance()
