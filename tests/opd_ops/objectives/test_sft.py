import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.objectives import sft
from opd_ops.objectives.objective import token_logprobs


def logits(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient(z, targets, mask, denominator):
    z = z.clone().requires_grad_()
    sft.loss(z, targets, mask, denominator).backward()
    return z.grad


def test_three_tokens_by_hand():
    z = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]).log()
    found = float(sft.loss(z, torch.tensor([[1, 2]]), torch.ones(1, 2), 2.0))
    assert found == pytest.approx(-(math.log(0.25) + math.log(0.8)) / 2, abs=1e-6)


@given(seed=st.integers(0, 10_000), size=st.integers(2, 32), denominator=st.sampled_from([1.0, 6.0, 13.0]))
def test_the_gradient_is_p_minus_onehot(seed, size, denominator):
    z = logits(2, 3, size, seed=seed)
    targets = torch.randint(size, (2, 3), generator=torch.Generator().manual_seed(seed))
    expected = torch.softmax(z.double(), -1) - torch.nn.functional.one_hot(targets, size)
    found = gradient(z, targets, torch.ones(2, 3), denominator)
    torch.testing.assert_close(found.double(), expected / denominator, atol=1e-6, rtol=0)


def test_finite_differences_agree():
    z, targets, mask, h = logits(1, 2, 4), torch.tensor([[3, 0]]), torch.ones(1, 2), 1e-2
    for i, slope in enumerate(gradient(z, targets, mask, 2.0).flatten()):
        shift = torch.zeros(8)
        shift[i] = h
        ends = [float(sft.loss(z + s * shift.view_as(z), targets, mask, 2.0)) for s in (1, -1)]
        # Truncation h^2/6 f''' < 1e-5; fp32 rounding 2e-7 / h = 2e-5.
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(float(slope), abs=1e-4)


def test_masked_positions_change_nothing():
    z, targets = logits(2, 3, 8), torch.tensor([[1, 2, 3], [4, 5, 6]])
    mask = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    before = gradient(z, targets, mask, 4.0)
    assert not before[0, 1:].any()
    z[0, 1:], targets[0, 1:] = 9.0, 7
    assert torch.equal(before, gradient(z, targets, mask, 4.0))


def test_the_global_denominator_weighs_tokens_not_sequences():
    z, targets = logits(2, 3, 8), torch.tensor([[1, 2, 3], [4, 5, 6]])
    mask = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    nll = -token_logprobs(z, targets)
    whole = float(sft.loss(z, targets, mask, 4.0))
    assert whole == pytest.approx(float((nll[0, 0] + nll[1].sum()) / 4), rel=1e-6)
    parts = [float(sft.loss(z[i : i + 1], targets[i : i + 1], mask[i : i + 1], 4.0)) for i in (0, 1)]
    assert whole == pytest.approx(sum(parts), rel=1e-6)


def test_token_logprobs_are_fp32_whatever_the_logits():
    z, targets = logits(1, 4, 8).bfloat16(), torch.tensor([[0, 1, 2, 7]])
    found = token_logprobs(z, targets)
    assert found.dtype == torch.float32
    for t, token in enumerate(targets[0].tolist()):
        assert float(found[0, t]) == float(torch.log_softmax(z[0, t].float(), -1)[token])
