import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.rollout.parity import Parity, compare

logprob = st.floats(-30, 0)
ragged = st.lists(st.lists(st.tuples(logprob, logprob), max_size=6), max_size=6).filter(any)


def test_equal_logprobs_have_parity_zero():
    same = [[-0.5, -3.0], [], [-7.0]]
    assert compare(same, same) == Parity(tokens=3, mean_abs=0.0, p95=0.0, p99=0.0, maximum=0.0, outside=0.0)


def test_a_worked_example_of_101_tokens():
    # |d| is 0, 0.01, ..., 1.00: the linear percentiles of 101 even steps are the steps themselves.
    steps = [k / 100 for k in range(101)]
    found = compare([[-2.0 + s for s in steps]], [[-2.0] * 101])
    assert found.tokens == 101
    assert found.mean_abs == pytest.approx(0.5)
    assert (found.p95, found.p99, found.maximum) == pytest.approx((0.95, 0.99, 1.0))
    # exp(-d) < 0.9 from d = 0.11 on, since -log 0.9 = 0.10536.
    assert found.outside == pytest.approx(90 / 101)


def test_outside_counts_the_importance_weight_of_the_trainer_over_the_engine():
    # exp(0.1) = 1.105 is outside and exp(-0.1) = 0.905 inside: the direction shows.
    assert compare([[-1.1]], [[-1.0]]).outside == 1.0
    assert compare([[-1.0]], [[-1.1]]).outside == 0.0
    edges = [math.log(0.9) + 1e-9, math.log(1.1) - 1e-9, math.log(0.9) - 1e-9, math.log(1.1) + 1e-9]
    assert compare([[-1.0] * 4], [[-1.0 + e for e in edges]]).outside == 0.5


def test_a_weight_too_large_for_a_float_is_outside():
    assert compare([[-1000.0, -1.0]], [[-1.0, -1000.0]]).outside == 1.0


def test_errors_of_both_signs_do_not_cancel():
    found = compare([[-1.3, -0.7]], [[-1.0, -1.0]])
    assert found.mean_abs == pytest.approx(0.3) and found.outside == 1.0


@given(ragged)
def test_figures_are_ordered_and_do_not_depend_on_the_split_into_responses(rows):
    engine, trainer = [[e for e, _ in row] for row in rows], [[t for _, t in row] for row in rows]
    found = compare(engine, trainer)
    assert found.tokens == sum(map(len, rows))
    assert 0 <= found.p95 <= found.p99 <= found.maximum
    assert found.mean_abs <= found.maximum * (1 + 1e-12)  # a mean of equal values may round up
    assert 0 <= found.outside <= 1
    flat = np.array([pair for row in rows for pair in row])
    assert compare([flat[:, 0].tolist()], [flat[:, 1].tolist()]) == found
    assert found.mean_abs == pytest.approx(np.abs(flat[:, 0] - flat[:, 1]).mean(), abs=1e-12)


@pytest.mark.parametrize(
    ("engine", "trainer", "message"),
    [
        ([[-1.0]], [[-1.0], [-1.0]], "the engine scored 1 responses and the trainer 2"),
        ([[-1.0], [-1.0, -2.0]], [[-1.0], [-1.0]], "response 1: the engine scored 2 tokens and the trainer 1"),
        ([[-1.0], [-1.0, math.nan]], [[-1.0], [-1.0, -1.0]], "response 1, token 1: the engine's .* nan"),
        ([[-1.0]], [[-math.inf]], "response 0, token 0: the trainer's .* -inf"),
        ([], [], "no token"),
        ([[], []], [[], []], "no token"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_its_place(engine, trainer, message):
    with pytest.raises(ValueError, match=message):
        compare(engine, trainer)
