"""One step against a reference that knows no padding, batches or micro-batches; then what a trainer guarantees."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from opd_ops.models import assemble
from opd_ops.recipe import AdamW, Evaluation, FinalOf, Opd, Precision, Sft
from opd_ops.training import batches

NAMES = ("sft", "opd", "opd-privileged", "rlvr")
# A large eps makes the update smooth in the gradient, so that float noise in a tiny gradient cannot flip its sign.
SMOOTH = AdamW(learning_rate=0.1, eps=1.0, weight_decay=0.1, warmup=0, clip=0.5)


def response_logits(model, prompt, response):
    """Logits that predict the response, from one sequence alone with the model's own mask and positions."""
    return model(torch.tensor([[*prompt, *response]]), use_cache=False).logits[0, len(prompt) - 1 : -1]


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
    problems = task.problems("train", spec.prompts, np.random.default_rng((trainer.seed, 1, step)))
    rollouts = batches.sample(model, task, problems, spec, trainer.seed, step)
    asked = [problem for problem in problems for _ in range(spec.samples)]
    if isinstance(recipe.objective, Opd):
        total = 0.0
        for problem, rollout in zip(asked, rollouts, strict=True):
            log_s = response_logits(model, problem.prompt, rollout.tokens).log_softmax(-1)
            prompt = problem.prompt if recipe.objective.teacher else problem.privileged
            log_t = response_logits(teacher, prompt, rollout.tokens).detach().log_softmax(-1)
            total = total + (log_s.exp() * (log_s - log_t)).sum()
        return total / sum(len(rollout.tokens) for rollout in rollouts)
    rewards = np.array(
        [0.0 if r.truncated else task.verify(p, r.tokens[:-1]) for p, r in zip(asked, rollouts, strict=True)]
    ).reshape(len(problems), spec.samples)
    advantage = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, keepdims=True) + 1e-6)
    assert advantage.any()
    means = [
        response_logits(model, p.prompt, r.tokens).log_softmax(-1)[range(len(r.tokens)), r.tokens].mean()
        for p, r in zip(asked, rollouts, strict=True)
    ]
    return -sum(a * mean for a, mean in zip(advantage.flatten(), means, strict=True)) / len(asked)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_equals_the_formula_taken_sequence_by_sequence(name, trainer, weights):
    run = trainer(name, optimizer=SMOOTH)
    model = assemble(*weights(0), torch.float32)
    teacher = assemble(*weights(0 if name == "opd-privileged" else 1), torch.float32)
    loss = reference_loss(run, model, teacher, 1)
    loss.backward()
    loss = loss.detach()
    gradients = {key: p.grad.double() for key, p in model.named_parameters()}
    norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
    before = {key: w.double() for key, w in run.weights().items()}
    row = run.advance()
    # Padding changes the order of fp32 sums.
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
    one, other = whole.advance(), parts.advance()
    # Gradients of parts are added in another order; 1e-5 is a hundred ulp of fp32.
    for column, value in one.items():
        assert other[column] == (value if value is None else pytest.approx(value, rel=1e-5, abs=1e-6)), column
    for key, w in whole.weights().items():
        assert torch.allclose(w, parts.weights()[key], rtol=0, atol=1e-6), key


def test_a_teacher_equal_to_the_student_moves_nothing(trainer):
    run = trainer("opd", teacher=0, optimizer=AdamW(learning_rate=1e-3, eps=1.0))
    masters = {key: w.clone() for key, w in run.weights().items()}
    served = {key: w.clone() for key, w in run.model.state_dict().items()}
    row = run.advance()
    assert (row["loss"], row["kl"]) == (0.0, 0.0)
    assert row["grad_norm"] < 1e-6  # softmax rows sum to 1 only to an ulp
    for key, w in run.weights().items():
        assert torch.allclose(w, masters[key], rtol=0, atol=1e-3 * 1e-6)
    # A weight of zero (the PAD row) has no rounding to absorb even this.
    assert all(
        torch.equal(w[served[key] != 0], served[key][served[key] != 0]) for key, w in run.model.state_dict().items()
    )


def test_another_teacher_gives_another_step(trainer):
    one, other = trainer("opd", teacher=1).advance(), trainer("opd", teacher=2).advance()
    assert one["tokens"] == other["tokens"] and one["kl"] == one["loss"] > 0
    assert one["grad_norm"] != other["grad_norm"]


def test_the_teacher_never_moves(trainer):
    run = trainer("opd")
    before = {key: w.clone() for key, w in run.teacher.state_dict().items()}
    for _ in range(2):
        run.advance()
    assert all(torch.equal(w, before[key]) for key, w in run.teacher.state_dict().items())
    assert all(p.grad is None for p in run.teacher.parameters())


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_flat_groups_give_no_gradient(reward, trainer, monkeypatch):
    run = trainer("rlvr", optimizer=AdamW(learning_rate=1e-2))
    monkeypatch.setattr(batches, "reward", lambda task, problem, rollout: reward)
    before = {key: w.clone() for key, w in run.weights().items()}
    row = run.advance()
    assert (row["loss"], row["grad_norm"], row["flat_groups"], row["reward"]) == (0.0, 0.0, 1.0, reward)
    assert all(torch.equal(w, before[key]) for key, w in run.weights().items())


def poison(run, how):
    norm = run.model.get_parameter("model.norm.weight")
    if how == "loss":
        norm.data.fill_(float("nan"))
        return lambda: None
    return norm.register_hook(lambda gradient: gradient * float("inf")).remove


@pytest.mark.parametrize("how", ["loss", "gradient"])
@pytest.mark.parametrize("name", NAMES)
def test_a_non_finite_step_is_named_and_leaves_no_trace(name, how, trainer):
    run, untouched = trainer(name, seed=3), trainer(name, seed=3)
    for each in (run, untouched):
        each.advance()
    state = {key: w.clone() for key, w in run.optimizer.state().items()}
    heal = poison(run, how)
    with pytest.raises(FloatingPointError, match=rf"test\.{run.recipe.objective.kind} seed 3 step 2: "):
        run.advance()
    heal()
    assert run.step == 1
    assert all(torch.equal(w, state[key]) for key, w in run.optimizer.state().items())
    run.restore(state, 1)  # serves the masters again
    assert run.advance() == untouched.advance()


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_trainer_goes_on_bit_for_bit(name, trainer):
    through = trainer(name)
    for _ in range(3):
        through.advance()
    state = {key: w.clone() for key, w in through.optimizer.state().items()}
    resumed = trainer(name)
    resumed.advance()  # a state of its own, which the restored one must replace
    resumed.restore(state, 3)
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
    assert one.held_out == other.held_out
    assert one.evaluate() == other.evaluate()
    training = {tuple(p.prompt) for p in one.task.problems("train", 50, np.random.default_rng(0))}
    assert not training & {tuple(p.prompt) for p in one.held_out}


def test_accuracy_is_a_mean_over_problems_and_its_error_counts_problems(trainer, monkeypatch):
    run = trainer("sft", evaluation=Evaluation(problems=4, samples=2))
    greedy, sampled = [1, 0, 1, 1], [1, 1, 1, 0, 0, 0, 0, 1]
    scores = itertools.cycle([*greedy, *sampled])
    monkeypatch.setattr(batches, "reward", lambda task, problem, rollout: float(next(scores)))
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
    row = run.advance()
    assert 0 < row["truncated"] < 1
    assert row["reward"] == pytest.approx(1 - row["truncated"])


def test_training_columns_say_what_a_step_did(trainer):
    sft, opd, rlvr = (trainer(name).advance() for name in ("sft", "opd", "rlvr"))
    assert set(sft) == set(opd) == set(rlvr)
    missing = lambda row: {column for column, value in row.items() if value is None}
    assert missing(sft) == {"reward", "truncated", "kl", "flat_groups"}
    assert missing(opd) == {"flat_groups"}
    assert missing(rlvr) == {"kl"}
    assert all(0 < row["entropy"] <= np.log(8) for row in (sft, opd, rlvr))
    assert sft["learning_rate"] == 0.5e-3  # the first of two warm-up steps


def test_sft_learns(trainer):
    run = trainer("sft", optimizer=AdamW(learning_rate=1e-2, warmup=0))
    losses = [run.advance()["loss"] for _ in range(20)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_masters_start_at_the_bf16_view_and_serve_it(compute, trainer, weights):
    run = trainer("opd", precision=Precision(compute=compute))
    start = weights(0)[1]
    assert all(torch.equal(w, start[key].bfloat16().float()) for key, w in run.weights().items())
    for _ in range(3):
        run.advance()
    for key, parameter in run.model.named_parameters():
        master = run.weights()[key]
        assert master.dtype == torch.float32
        assert parameter.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[compute]
        assert torch.equal(parameter.float(), master.bfloat16().float())
    assert any(not torch.equal(w, w.bfloat16().float()) for w in run.weights().values())


def test_opd_without_a_usable_teacher_is_refused(trainer, recipe, task, weights, monkeypatch):
    from opd_ops.training.loop import Trainer

    named = recipe(Opd(teacher=FinalOf(recipe="test.other")))
    with pytest.raises(ValueError, match=r"test\.opd names the teacher .*test\.other.*none was given"):
        Trainer(named, 0, *weights(0), task)
    bare = task.problems
    plain = lambda *a: [dataclasses.replace(problem, privileged=None) for problem in bare(*a)]
    monkeypatch.setattr(task, "problems", plain)
    with pytest.raises(ValueError, match=r"test\.opd has no teacher, and task parity no privileged prompt"):
        Trainer(recipe(Opd(teacher=None)), 0, *weights(0), task)
