import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.rollout.draw import draw

V = 8


def column(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_on_an_even_grid_of_uniforms_are_the_softmax_at_the_temperature(temperature):
    logits, n = torch.linspace(-2, 3, V), 1000
    token, logprob = draw(logits.expand(n, -1), (torch.arange(n).double() + 0.5) / n, temperature)
    p = torch.softmax(logits.double() / temperature, -1)
    # An interval of length p holds n p grid points up to one at each end.
    assert (abs(np.bincount(token, minlength=V) - n * p.numpy()) <= 1).all()
    assert torch.equal(logprob, p.log().float()[token])


def test_the_boundaries_of_the_inverse_cdf_are_half_open():
    logits = torch.tensor([0.25, 0.25, 0.125, 0.125, 0.25, 0.0, 0.0, 0.0]).log().expand(5, -1)
    assert draw(logits, column([0.0, 0.3, 0.55, 0.7, 0.8]), 1.0)[0].tolist() == [0, 1, 2, 3, 4]
    # Equal logits: 1/8 is exact, so the cumulative sums are, and u on a boundary belongs to the token above it.
    flat, edges = torch.zeros(V, V), torch.arange(V).double() / V
    assert draw(flat, edges, 1.0)[0].tolist() == list(range(V))
    assert draw(flat[1:], edges[1:] - 2**-53, 1.0)[0].tolist() == list(range(V - 1))


@given(st.lists(st.one_of(st.floats(-40, 40), st.just(-np.inf)), min_size=V, max_size=V).filter(lambda x: max(x) > -40))
def test_extreme_uniforms_stay_in_the_vocabulary_and_on_possible_tokens(logits):
    ends = column([0.0, np.nextafter(0.0, 1.0), 0.5, np.nextafter(1.0, 0.0)])
    token, logprob = draw(torch.tensor(logits).expand(4, -1), ends, 1.0)
    assert (torch.tensor(logits)[token] > -np.inf).all() and logprob.isfinite().all()
    assert token[0] <= token[2] <= token[3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_greedy_takes_the_first_largest_logit_with_its_logprob_at_temperature_1(dtype):
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0], [5.0, 1.0, 2.0, 2.0]], dtype=dtype)
    token, logprob = draw(logits, None, 0.0)
    assert token.tolist() == [1, 0]
    expected = torch.log_softmax(logits.double(), -1)[[0, 1], [1, 0]]
    assert logprob.dtype == torch.float32 and torch.allclose(logprob.double(), expected, atol=1e-6)  # fp32 rounding


def test_a_low_temperature_draws_the_greedy_token():
    logits = torch.randn(50, V, generator=torch.Generator().manual_seed(0))
    token, logprob = draw(logits, torch.linspace(0.01, 0.99, 50).double(), 1e-4)
    assert torch.equal(token, logits.argmax(-1)) and (logprob > -1e-6).all()


def test_the_tail_is_not_cut():
    logits = torch.zeros(1, 50_000)
    logits[0, 0] = 30.0  # the rest of the mass is 50,000 exp(-30) = 5e-9
    token, logprob = draw(logits, column([1 - 1e-9]), 1.0)
    assert token > 0 and float(logprob) == pytest.approx(-30.0, abs=1e-5)


def test_logits_that_are_no_numbers_show_in_the_logprob():
    logits = torch.zeros(2, V)
    logits[1, 3] = torch.nan
    token, logprob = draw(logits, column([0.5, 0.5]), 1.0)
    assert logprob.isnan().tolist() == [False, True] and (token < V).all()
