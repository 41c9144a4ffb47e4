import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_ops.objectives import sft
from opd_ops.objectives.objective import log_softmax, token_logprobs


def gradient(z, targets):
    z = z.clone().requires_grad_()
    sft.per_token(log_softmax(z), targets).sum().backward()
    return z.grad


def test_three_tokens_by_hand():
    z = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]).log()
    found = sft.per_token(log_softmax(z), torch.tensor([[1, 2]]))
    assert found[0].tolist() == pytest.approx([math.log(4), math.log(1.25)], abs=1e-6)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 32))
def test_the_gradient_is_p_minus_onehot(seed, size, logits):
    z = logits(2, 3, size, seed=seed, scale=2.0)
    targets = torch.randint(size, (2, 3), generator=torch.Generator().manual_seed(seed))
    expected = torch.softmax(z.double(), -1) - torch.nn.functional.one_hot(targets, size)
    torch.testing.assert_close(gradient(z, targets).double(), expected, atol=1e-6, rtol=0)


def test_averaged_over_the_data_it_is_the_forward_kl(logits):
    """sum_y p(y) [-log s(y)] is KL(p || s) plus the entropy of p, which has no gradient."""
    student, data = logits(1, 1, 7), torch.softmax(logits(7, seed=1), -1)
    z = student.expand(7, 1, 7).clone().requires_grad_()
    (sft.per_token(log_softmax(z), torch.arange(7)[:, None])[:, 0] * data).sum().backward()
    expected = torch.softmax(student[0, 0], -1) - data
    torch.testing.assert_close(z.grad.sum((0, 1)), expected, atol=1e-6, rtol=0)


def test_it_is_fp32_whatever_the_logits(logits):
    z, targets = logits(1, 4, 8).bfloat16(), torch.tensor([[0, 1, 2, 7]])
    found = sft.per_token(log_softmax(z), targets)
    assert found.dtype == torch.float32
    for t, token in enumerate(targets[0].tolist()):
        assert float(found[0, t]) == -float(torch.log_softmax(z[0, t].float(), -1)[token])


def test_token_logprobs_at_a_temperature_are_those_of_scaled_logits(logits):
    z, targets = logits(2, 3, 8), torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert torch.equal(token_logprobs(z, targets, 2.0), token_logprobs(z / 2, targets))
