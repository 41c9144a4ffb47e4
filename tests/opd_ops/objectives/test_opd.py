import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.objectives import opd

ONE = torch.ones(1, 1)


def logits(*shape, seed=0, scale=2.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient(student, teacher, mask, denominator, temperature=1.0):
    z = student.clone().requires_grad_()
    opd.loss(z, teacher, mask, denominator, temperature).backward()
    return z.grad


def exact(student, teacher, temperature=1.0):
    """p_s (log p_s/p_T - KL) / T in float64."""
    log_s = torch.log_softmax(student.double() / temperature, -1)
    ratio = log_s - torch.log_softmax(teacher.double() / temperature, -1)
    kl = (log_s.exp() * ratio).sum(-1, keepdim=True)
    return log_s.exp() * (ratio - kl) / temperature


def test_three_tokens_by_hand_fix_the_value():
    student, teacher = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
    # 1/2 ln 2 + 1/4 ln 1 + 1/4 ln 1/2
    assert float(opd.divergence(student.log(), teacher.log())) == pytest.approx(0.25 * math.log(2), abs=1e-6)


def test_three_tokens_by_hand_fix_the_direction():
    student, teacher = torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.5, 0.25, 0.25])
    forward = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.25 / 0.1)  # KL(teacher || student) = 0.223
    reverse = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.1 / 0.25)  # KL(student || teacher) = 0.193
    assert float(opd.divergence(student.log(), teacher.log())) == pytest.approx(reverse, abs=1e-6)
    assert float(opd.divergence(teacher.log(), student.log())) == pytest.approx(forward, abs=1e-6)


@given(seed=st.integers(0, 10_000), size=st.integers(2, 64), temperature=st.sampled_from([0.5, 1.0, 2.0]))
def test_the_gradient_is_the_closed_form(seed, size, temperature):
    student, teacher = logits(1, 1, size, seed=seed), logits(1, 1, size, seed=seed + 1)
    found = gradient(student, teacher, ONE, 1.0, temperature)
    # A log-ratio of x nats carries x fp32 roundings.
    atol = 1e-6 * max(1.0, float((student - teacher).abs().max()) / temperature)
    torch.testing.assert_close(found.double(), exact(student, teacher, temperature), atol=atol, rtol=0)
    assert abs(float(found.sum())) < atol, "logits have a free constant"


def test_the_gradient_is_the_closed_form_to_1e_6_on_a_small_vocabulary():
    student, teacher = logits(2, 3, 5, scale=1.0), logits(2, 3, 5, seed=1, scale=1.0)
    found = gradient(student, teacher, torch.ones(2, 3), 1.0)
    torch.testing.assert_close(found.double(), exact(student, teacher), atol=1e-6, rtol=0)


def test_finite_differences_agree():
    student, teacher = logits(1, 2, 4, scale=1.0), logits(1, 2, 4, seed=1, scale=1.0)
    mask, h = torch.tensor([[1.0, 1.0]]), 1e-2
    found = gradient(student, teacher, mask, 2.0).flatten()
    for i, slope in enumerate(found):
        shift = torch.zeros(8)
        shift[i] = h
        ends = [float(opd.loss(student + s * shift.view_as(student), teacher, mask, 2.0)) for s in (1, -1)]
        # Truncation h^2/6 f''' < 1e-4; fp32 rounding 1e-7 / h = 1e-5.
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(float(slope), abs=2e-4)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_a_teacher_equal_to_the_student_gives_no_loss_and_no_gradient(temperature):
    z = logits(2, 3, 16)
    assert float(opd.loss(z, z.clone(), torch.ones(2, 3), 6.0, temperature)) == 0.0
    # p (0 - KL) is exactly zero; back-propagation instead cancels p against p sum(p), at fp32 rounding.
    assert float(gradient(z, z.clone(), torch.ones(2, 3), 6.0, temperature).abs().max()) < 1e-7


def test_another_teacher_changes_the_gradient():
    student, teacher = logits(1, 4, 8), logits(1, 4, 8, seed=1)
    mask = torch.ones(1, 4)
    found = gradient(student, teacher, mask, 4.0)
    assert float((found - gradient(student, teacher.flip(-1), mask, 4.0)).norm()) > 0.1 * float(found.norm())


def test_a_step_along_the_gradient_raises_what_the_teacher_prefers():
    student, teacher = torch.zeros(1, 1, 3), torch.tensor([[[2.0, 0.0, 0.0]]])
    found = gradient(student, teacher, ONE, 1.0)[0, 0]
    assert found[0] < 0 < found[1] and found[1] == found[2]


def test_no_gradient_reaches_the_teacher():
    teacher = logits(1, 1, 4, seed=1).requires_grad_()
    z = logits(1, 1, 4).requires_grad_()
    opd.loss(z, teacher, ONE, 1.0).backward()
    assert teacher.grad is None and z.grad is not None


def test_both_distributions_are_taken_at_the_loss_temperature():
    student, teacher = logits(1, 1, 6), logits(1, 1, 6, seed=1)
    assert torch.equal(opd.divergence(student, teacher, 2.0), opd.divergence(student / 2, teacher / 2))
    assert float(opd.divergence(student, teacher, 2.0)) < float(opd.divergence(student, teacher))


def test_masked_positions_change_nothing():
    student, teacher = logits(2, 4, 8), logits(2, 4, 8, seed=1)
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    before = gradient(student, teacher, mask, 6.0)
    assert not before[0, 2:].any()
    student[0, 2:], teacher[0, 2:] = 7.0, -3.0
    assert torch.equal(before, gradient(student, teacher, mask, 6.0))


def test_the_sampled_token_form_has_this_gradient_in_expectation():
    student, teacher = logits(1, 1, 12), logits(1, 1, 12, seed=1)
    log_s = torch.log_softmax(student[0, 0].double(), -1)
    advantage = torch.log_softmax(teacher[0, 0].double(), -1) - log_s
    p = log_s.exp()
    # sum over samples a of p(a) * [-A(a)] * grad log p(a), with grad log p(a) = onehot(a) - p
    expected = -(p * advantage) @ (torch.eye(12, dtype=torch.float64) - p)
    torch.testing.assert_close(gradient(student, teacher, ONE, 1.0)[0, 0].double(), expected, atol=2e-6, rtol=0)


def test_bf16_logits_are_scored_in_fp32():
    student, teacher = logits(1, 3, 8).bfloat16(), logits(1, 3, 8, seed=1).bfloat16()
    found = opd.divergence(student, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, opd.divergence(student.float(), teacher.float()))
