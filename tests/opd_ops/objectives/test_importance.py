import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.objectives import importance

MASK = torch.tensor([[1.0, 1.0, 1.0, 0.0]])


def test_weights_by_hand():
    log_s, log_q = torch.tensor([[0.4, 0.1, 0.2]]).log(), torch.tensor([[0.2, 0.4, 0.2]]).log()
    torch.testing.assert_close(importance.weights(log_s, log_q, None), torch.tensor([[2.0, 0.25, 1.0]]))
    torch.testing.assert_close(importance.weights(log_s, log_q, 1.5), torch.tensor([[1.5, 0.25, 1.0]]))
    assert torch.equal(importance.weights(log_s, log_s, 2.0), torch.ones(1, 3))


def test_weights_carry_no_gradient_and_ratios_the_students():
    log_s, log_q = torch.tensor([[-1.0, -2.0]]).requires_grad_(), torch.tensor([[-1.5, -1.0]]).requires_grad_()
    assert not importance.weights(log_s, log_q, 2.0).requires_grad
    found = importance.ratio(log_s, log_q)
    found.sum().backward()
    torch.testing.assert_close(log_s.grad, found.detach())
    assert log_q.grad is None


def test_a_hopeless_log_ratio_is_clamped_before_it_is_exponentiated():
    found = importance.weights(torch.tensor([[0.0, -500.0]]), torch.tensor([[-500.0, 0.0]]), None)
    assert found[0].tolist() == pytest.approx([math.exp(20), math.exp(-20)])


def test_the_uncut_weights_of_all_tokens_average_to_one(logits):
    log_s, log_q = torch.log_softmax(logits(1, 50), -1), torch.log_softmax(logits(1, 50, seed=1), -1)
    assert float((log_q.exp() * importance.weights(log_s, log_q, None)).sum()) == pytest.approx(1, abs=1e-6)


def test_effective_sample_size_by_hand():
    w = torch.tensor([[1.0, 2.0, 3.0, 100.0]])
    assert importance.effective(w, MASK) == pytest.approx(36 / (3 * 14))
    assert importance.effective(torch.full((1, 4), 0.3), MASK) == pytest.approx(1)
    assert importance.effective(w, torch.zeros(1, 4)) == 0.0


@given(w=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20), scale=st.floats(1e-3, 1e3))
def test_effective_sample_size_lies_between_one_of_n_and_all_and_has_no_scale(w, scale):
    mask = torch.ones(1, len(w))
    found = importance.effective(torch.tensor([w], dtype=torch.float64), mask)
    assert 1 / len(w) - 1e-9 <= found <= 1 + 1e-9
    assert importance.effective(scale * torch.tensor([w], dtype=torch.float64), mask) == pytest.approx(found)


def test_the_share_at_the_cap_counts_tokens_under_the_mask():
    log_s = torch.tensor([[math.log(0.9), math.log(0.2), math.log(0.3), 0.0]])
    w = importance.weights(log_s, torch.full((1, 4), math.log(0.1)), 2.0)
    assert importance.cut(w, MASK, 2.0) == 1.0
    assert importance.cut(importance.weights(log_s, log_s, 2.0), MASK, 2.0) == 0.0
    assert importance.cut(torch.tensor([[2.0, 1.0, 0.5, 2.0]]), MASK, 2.0) == pytest.approx(1 / 3)
    assert importance.cut(w, MASK, None) == 0.0
    assert importance.cut(w, torch.zeros(1, 4), 2.0) == 0.0


def test_a_cap_that_fp32_rounds_is_still_recognised():
    w = importance.weights(torch.zeros(1, 4), torch.full((1, 4), -9.0), 2.3)
    assert importance.cut(w, MASK, 2.3) == 1.0
