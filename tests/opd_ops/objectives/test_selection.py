import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_ops.objectives import selection
from opd_ops.recipe import Selection

RANKINGS = ["gap", "absolute-gap", "random", "teacher-entropy", "student-entropy"]
COLUMNS = {
    "log_ratio": torch.tensor([[0.5, -3.0, 2.0, 0.1, 9.0]]),
    "teacher_entropy": torch.tensor([[4.0, 3.0, 2.0, 1.0, 9.0]]),
    "student_entropy": torch.tensor([[1.0, 2.0, 4.0, 3.0, 9.0]]),
    "draws": torch.tensor([[0.3, 0.9, 0.1, 0.8, 0.99]]),
}
MASK = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])


def factors(by, keep, mask=MASK, **columns):
    return selection.factors(Selection(by=by, keep=keep), mask, **(COLUMNS | columns))


@pytest.mark.parametrize(
    ("by", "kept"),
    [
        ("gap", [2, 0, 2, 0, 0]),
        ("absolute-gap", [0, 2, 2, 0, 0]),
        ("random", [0, 2, 0, 2, 0]),
        ("teacher-entropy", [2, 2, 0, 0, 0]),
        ("student-entropy", [0, 0, 2, 2, 0]),
    ],
)
def test_half_of_four_tokens_by_hand(by, kept):
    assert factors(by, 0.5)[0].tolist() == kept


def test_what_is_left_out_is_never_padding():
    assert factors("gap", 0.25)[0].tolist() == [0, 0, 4, 0, 0]
    assert not factors("gap", 1.0, mask=torch.zeros(1, 5)).any()


@pytest.mark.parametrize(
    ("total", "keep", "count"),
    [(4, 0.25, 1), (4, 0.1, 1), (1, 0.5, 1), (10, 0.25, 3), (10, 0.24, 2), (100, 0.07, 7), (30, 0.1, 3), (5, 1.0, 5)],
)
def test_counts_round_halves_up_and_keep_at_least_one(total, keep, count):
    rows = torch.arange(total).float()[None]
    found = selection.factors(Selection(by="gap", keep=keep), torch.ones(1, total), rows, rows, rows)
    assert int((found > 0).sum()) == count
    torch.testing.assert_close(found.max(), torch.tensor(total / count))


def test_ties_go_to_the_earlier_position():
    level = torch.ones(1, 5)
    for by in ("gap", "absolute-gap", "random", "teacher-entropy", "student-entropy"):
        found = factors(by, 0.5, log_ratio=level, draws=level, teacher_entropy=level, student_entropy=level)
        assert found[0].tolist() == [2, 2, 0, 0, 0]


def test_random_needs_draws_and_the_rest_none():
    with pytest.raises(ValueError, match="needs draws"):
        factors("random", 0.5, draws=None)
    assert torch.equal(factors("gap", 0.5, draws=None), factors("gap", 0.5))


def test_factors_are_fp32_without_gradient():
    found = factors("gap", 0.5, log_ratio=COLUMNS["log_ratio"].clone().requires_grad_())
    assert found.dtype == torch.float32 and not found.requires_grad


def step(seed, lengths, width):
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).float()
    names = ("log_ratio", "teacher_entropy", "student_entropy", "draws")
    return {"mask": mask} | {name: torch.rand(len(lengths), width, generator=generator) for name in names}


@settings(max_examples=50)
@given(
    by=st.sampled_from(RANKINGS),
    keep=st.floats(0.01, 1),
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_factors_of_a_response_add_up_to_its_length_whatever_its_padding_and_micro_batch(by, keep, lengths, seed):
    spec, columns = Selection(by=by, keep=keep), step(seed, lengths, 12)
    found = selection.factors(spec, **columns)
    torch.testing.assert_close(found.sum(1), torch.tensor(lengths).float(), atol=1e-4, rtol=0)
    assert not found[columns["mask"] == 0].any()
    # Each row kept or not, its factor is one number.
    assert all(len(row[row > 0].unique()) <= 1 for row in found)
    wider = {name: torch.cat([x, torch.full_like(x, 0 if name == "mask" else 7)], 1) for name, x in columns.items()}
    assert torch.equal(selection.factors(spec, **wider)[:, :12], found)
    parts = [selection.factors(spec, **{name: x[i : i + 1] for name, x in columns.items()}) for i in range(len(found))]
    assert torch.equal(torch.cat(parts), found)


@settings(max_examples=30)
@given(by=st.sampled_from(RANKINGS), lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_keeping_all_changes_nothing(by, lengths):
    columns = step(0, lengths, 12)
    assert torch.equal(selection.factors(Selection(by=by, keep=1.0), **columns), columns["mask"])


@settings(max_examples=30)
@given(keep=st.floats(0.1, 0.9), length=st.integers(1, 12), seed=st.integers(0, 1000))
def test_what_is_kept_ranks_above_what_is_not(keep, length, seed):
    columns = step(seed, [length], length)
    found = selection.factors(Selection(by="gap", keep=keep), **columns)
    kept, left = columns["log_ratio"][found > 0], columns["log_ratio"][found == 0]
    assert len(left) == 0 or float(kept.min()) >= float(left.max())


def test_at_random_every_position_is_kept_equally_often_so_the_mean_factor_is_one():
    draws = torch.rand(20_000, 8, generator=torch.Generator().manual_seed(0))
    level = torch.zeros_like(draws)
    found = selection.factors(Selection(by="random", keep=0.25), torch.ones_like(draws), level, level, level, draws)
    # A factor is 4 with probability 1/4: standard error sqrt(3 / 20000) = 0.012.
    torch.testing.assert_close(found.mean(0), torch.ones(8), atol=0.06, rtol=0)
