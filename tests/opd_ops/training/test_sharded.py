"""Two ranks over gloo against one process: the same steps but for the order of fp32 sums, and the same states."""

import dataclasses
import json
from functools import partial

import pytest
import torch

from opd_ops.recipe import AdamW, Correction, Opd, Precision, Resources, Rollout, Selection, Student, Weights
from opd_ops.training import batches
from opd_ops.training.loop import Diverged
from opd_ops.training.rank0 import Rank0Trainer
from opd_ops.training.ranks import span, spans
from tests.opd_ops.training.pair import pair

NAMES = ("sft", "opd", "opd-privileged", "opd-pg", "rlvr", "mix")
# A large eps makes the update smooth in the gradient, so that float noise in a tiny gradient cannot flip its sign.
SMOOTH = AdamW(learning_rate=0.1, eps=1.0, weight_decay=0.1, warmup=0, clip=0.5)
# Sums over sequences are added in another order, as where micro-batches are split: 1e-5 is a hundred ulp of fp32.
CLOSE = {"rel": 1e-5, "abs": 1e-6}
OTHER = Weights(ref="other")


@pytest.fixture(scope="module")
def ranks():
    with pair() as found:
        yield found


@pytest.fixture
def led(ranks, trainer, monkeypatch):
    """led(...): as `trainer`, over the two ranks; the one before it is let go."""
    from opd_ops.training import loop

    made = []

    def make(*given, **named):
        if made:
            made.pop().close()
        ranks.broadcast(True)
        with monkeypatch.context() as patched:
            patched.setattr(loop, "Trainer", partial(Rank0Trainer, ranks))
            made.append(trainer(*given, **named))
        return made[0]

    yield make
    for each in made:
        each.close()


def alike(one, other):
    assert one.row.keys() == other.row.keys()
    for column, value in one.row.items():
        assert other.row[column] == (value if value is None else pytest.approx(value, **CLOSE)), column
    assert [row["tokens"] for row in one.positions] == [row["tokens"] for row in other.positions]
    for ours, theirs in zip(one.positions, other.positions, strict=True):
        assert theirs == pytest.approx(ours, **CLOSE)
    assert [r.tokens for r in one.responses] == [r.tokens for r in other.responses]


def close(one, other, atol=1e-6):
    """Weights within this of one another: by default eight ulp of a weight of 1."""
    assert one.keys() == other.keys()
    for name, w in one.items():
        assert torch.allclose(w, other[name], rtol=0, atol=atol), name


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_make_the_steps_of_one_process(name, trainer, led):
    alone, together = trainer(name, optimizer=SMOOTH), led(name, optimizer=SMOOTH)
    for _ in range(3):
        alike(alone.advance(), together.advance())
    close(alone.weights(), together.weights(), atol=3e-6)
    assert alone.evaluate() == together.evaluate()


FULL = Rollout(prompts=5, samples=1, max_new_tokens=8)
STALE = Rollout(prompts=5, samples=1, max_new_tokens=8, source=Student(lag=1), correction=Correction(cap=1.5))


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        ("sft", {"rollout": FULL, "precision": Precision(micro_batch=2)}),  # rounds without rows
        ("sft", {"rollout": Rollout(prompts=1, max_new_tokens=8)}),  # a rank without rows
        ("opd", {"rollout": FULL, "precision": Precision(micro_batch=1)}),
        (Opd(teacher=OTHER, estimator="student-top-k", k=3), {"rollout": FULL, "precision": Precision(micro_batch=2)}),
        (Opd(teacher=OTHER, estimator="teacher-top-k", k=3), {"rollout": FULL, "precision": Precision(micro_batch=2)}),
        (
            Opd(teacher=OTHER, selection=Selection(by="random", keep=0.5)),
            {"rollout": FULL, "precision": Precision(micro_batch=2)},
        ),
        (Opd(teacher=OTHER, estimator="policy-gradient"), {"rollout": STALE, "precision": Precision(micro_batch=2)}),
        ("mix", {"precision": Precision(micro_batch=5)}),
        ("mix", {"rollout": Rollout(prompts=3, samples=3, max_new_tokens=8)}),  # five rows and four, four at once
        ("rlvr", {"resources": Resources(checkpoint_activations=True)}),
        ("opd", {"precision": Precision(weights="fp32")}),
    ],
)
def test_whatever_the_objective_and_the_split(objective, changes, trainer, led):
    alone, together = (make(objective, optimizer=SMOOTH, **changes) for make in (trainer, led))
    for _ in range(2):
        alike(alone.advance(), together.advance())
    close(alone.weights(), together.weights(), atol=3e-6)


@pytest.mark.parametrize("compute", ["autocast", "bf16"])
def test_lower_precision_trains_too(compute, trainer, led):
    precision = Precision(compute=compute, micro_batch=2)
    alone, together = (make("sft", optimizer=SMOOTH, precision=precision) for make in (trainer, led))
    one, other = alone.advance().row, together.advance().row
    # Products are rounded to bf16, whose ulp at 1 is 2^-7, by kernels that may choose another order for other rows.
    assert other["loss"] == pytest.approx(one["loss"], rel=2**-7)
    assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=2**-5)


@pytest.mark.parametrize("name", ["opd", "rlvr"])
def test_states_move_between_one_process_and_two_ranks(name, trainer, led):
    alone = trainer(name, optimizer=SMOOTH)
    alone.advance()
    tensors, facts = alone.state()
    held = {key: w.clone() for key, w in tensors.items()}
    together = led(name, optimizer=SMOOTH)
    together.advance()  # a state of its own, which the restored one must replace
    together.restore(held, json.loads(json.dumps(facts)), 1)
    found, told = together.state()
    assert list(found) == list(held) and told == facts
    assert all(torch.equal(w, held[key]) and w.dtype == held[key].dtype for key, w in found.items())
    alike(alone.advance(), together.advance())
    tensors, facts = together.state()
    back = trainer(name, optimizer=SMOOTH)
    back.restore(tensors, facts, 2)
    alike(alone.advance(), back.advance())
    close(alone.weights(), back.weights(), atol=3e-6)


def test_two_ranks_repeat_themselves_bit_for_bit(led):
    found = []
    for _ in range(2):
        run = led("rlvr")
        rows = [run.advance().row for _ in range(2)]
        found.append((rows, run.weights()))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(w, found[1][1][key]) for key, w in found[0][1].items())


def test_moments_are_kept_and_adopted(trainer, led):
    together = led("sft", optimizer=SMOOTH)
    together.advance()
    moments = together.moments()
    alone = trainer("sft", optimizer=SMOOTH, given={"moments": moments})
    kept = led("sft", optimizer=SMOOTH, given={"moments": moments})
    assert all(torch.equal(w, kept.moments().tensors[key]) for key, w in moments.tensors.items())
    alike(alone.advance(), kept.advance())
    short = dataclasses.replace(moments, tensors={k: w for k, w in moments.tensors.items() if "norm" not in k})
    with pytest.raises(ValueError, match=r"exp_avg of .*norm.* is lacking"):
        kept._adopt_moments(short)
    kept.advance()  # the other rank was told nothing


def test_logprobs_are_those_of_the_trained_weights(trainer, led):
    alone, together = trainer("sft"), led("sft")
    prompts, responses = [[1, 3, 4], [1, 5]], [[4, 5, 2], [6, 2]]
    for one, other in zip(alone.logprobs(prompts, responses), together.logprobs(prompts, responses), strict=True):
        assert other == pytest.approx(one, rel=1e-5)


class Tired(OSError):
    pass


@pytest.mark.parametrize("ask", ["prefetch", "score"])
def test_a_teacher_that_fails_ends_the_step_on_both_ranks(ask, trainer, led, monkeypatch):
    alone, together = (make("opd", precision=Precision(micro_batch=1)) for make in (trainer, led))
    asked, answer = [], getattr(together.teacher, ask)

    def tire(*given):
        asked.append(given)
        if len(asked) == (4 if ask == "score" else 1):
            raise Tired
        return answer(*given)

    before = together.state()[0]
    with monkeypatch.context() as patched:
        patched.setattr(together.teacher, ask, tire)
        with pytest.raises(Tired):
            together.advance()
    assert not together.broken and together.step == 0
    assert all(torch.equal(w, before[key]) for key, w in together.state()[0].items())
    alike(alone.advance(), together.advance())


def test_a_token_that_the_teacher_does_not_know_ends_the_step_on_both_ranks(led):
    run = led("opd")
    run.teacher.vocabulary = 4
    with pytest.raises(ValueError, match="share the 4 tokens"):
        run.advance()
    assert not run.broken
    run.teacher.vocabulary = 8
    assert run.advance().row["step"] == 1


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_a_non_finite_step_leaves_no_trace_on_either_rank(how, trainer, led):
    alone, together = trainer("sft"), led("sft")
    norm = together.model.get_submodule("model.norm")
    if how == "loss":
        heal = norm.register_forward_hook(lambda module, args, output: output * float("nan")).remove
    else:
        heal = norm.register_full_backward_hook(lambda module, given, taken: (given[0] * float("inf"),)).remove
    before = together.state()[0]
    with pytest.raises(Diverged, match=r"test\.sft seed 0 step 1: the .* (nan|inf)"):
        together.advance()
    heal()
    assert not together.broken
    assert all(torch.equal(w, before[key]) for key, w in together.state()[0].items())
    alike(alone.advance(), together.advance())


def test_a_part_is_half_of_every_weight_and_moment(led):
    run = led("sft")
    run.advance()
    for name, w in run.optimizer.masters.items():
        rows = run.optimizer.shapes[name][0]
        assert w.shape[0] == -(-rows // 2) and run.optimizer.adamw.state[w]["exp_avg"].shape == w.shape
    assert all(w.shape == run.optimizer.shapes[name] for name, w in run.weights().items())


@pytest.mark.parametrize(("count", "rows", "size"), [(2, 7, 2), (3, 7, 2), (4, 3, 1), (2, 64, 64), (3, 1, 8)])
def test_every_row_is_taken_once_and_every_rank_makes_as_many_rounds(count, rows, size):
    each = [spans(rank, count, rows, size) for rank in range(count)]
    assert len({len(found) for found in each}) == 1
    taken = [row for found in each for begin, end in found for row in range(begin, end)]
    assert taken == list(range(rows))
    assert all(end - begin <= size for found in each for begin, end in found)
    assert all(begin < end for begin, end in each[0])
    lengths = [end - begin for begin, end in (span(rank, count, rows) for rank in range(count))]
    assert max(lengths) - min(lengths) <= 1


def test_a_rows_draws_do_not_depend_on_how_many_rows_there_are():
    assert torch.equal(batches.draws(0, 1, 4, 8)[:2], batches.draws(0, 1, 2, 8))
