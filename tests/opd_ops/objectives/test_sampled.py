"""The two estimators that need the sampled token only."""

import math

import pytest
import torch

from opd_ops.objectives import k2, policy_gradient

LOG_S, LOG_T = torch.tensor([[0.8, 0.1]]).log(), torch.tensor([[0.5, 0.25]]).log()


def gradient(per_token):
    x = LOG_S.clone().requires_grad_()
    per_token(x, LOG_T).sum().backward()
    return x.grad[0]


def test_values_by_hand():
    ratios = [math.log(0.8 / 0.5), math.log(0.1 / 0.25)]
    found = policy_gradient.per_token(LOG_S, LOG_T)[0].tolist()
    assert found == pytest.approx([ratios[0] * math.log(0.8), ratios[1] * math.log(0.1)], abs=1e-6)
    assert k2.per_token(LOG_S, LOG_T)[0].tolist() == pytest.approx([r * r / 2 for r in ratios], abs=1e-6)


@pytest.mark.parametrize("per_token", [policy_gradient.per_token, k2.per_token])
def test_descent_lowers_what_the_student_overrates_by_the_log_ratio(per_token):
    found = gradient(per_token)
    assert found.tolist() == pytest.approx([math.log(1.6), math.log(0.4)], abs=1e-6)
    assert found[0] > 0 > found[1]


@pytest.mark.parametrize("per_token", [policy_gradient.per_token, k2.per_token])
def test_no_gradient_reaches_the_teacher(per_token):
    log_t = LOG_T.clone().requires_grad_()
    per_token(LOG_S.clone().requires_grad_(), log_t).sum().backward()
    assert log_t.grad is None
