import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_ops.objectives import divergence, forward_kl, jsd, reverse_kl

# Three tokens by hand: s = (.8, .1, .1), T = (.5, .25, .25).
STUDENT, TEACHER = torch.tensor([0.8, 0.1, 0.1]).log(), torch.tensor([0.5, 0.25, 0.25]).log()
REVERSE = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.1 / 0.25)  # KL(s || T) = 0.193
FORWARD = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.25 / 0.1)  # KL(T || s) = 0.223
NAMES = ["reverse-kl", "forward-kl", "jsd"]


def mixture(beta):
    """beta KL(T || M) + (1 - beta) KL(s || M) of the three tokens; the last two are alike."""
    m, n = beta * 0.5 + (1 - beta) * 0.8, beta * 0.25 + (1 - beta) * 0.1
    towards = 0.5 * math.log(0.5 / m) + 0.5 * math.log(0.25 / n)
    return beta * towards + (1 - beta) * (0.8 * math.log(0.8 / m) + 0.2 * math.log(0.1 / n))


def value(name, log_s, log_t, beta=0.3):
    return divergence.per_token(log_s, log_t, name, beta if name == "jsd" else None)


def gradient(name, student, teacher, beta=0.3):
    z = student.clone().requires_grad_()
    value(name, torch.log_softmax(z, -1), torch.log_softmax(teacher, -1), beta).sum().backward()
    return z.grad


def closed_form(name, student, teacher, beta=0.3):
    s, t = torch.softmax(student, -1), torch.softmax(teacher, -1)
    if name == "forward-kl":
        return s - t
    m = t if name == "reverse-kl" else beta * t + (1 - beta) * s
    ratio = (s / m).log()
    return (1.0 if name == "reverse-kl" else 1 - beta) * s * (ratio - (s * ratio).sum(-1, keepdim=True))


def test_three_tokens_by_hand_fix_the_value_of_each_direction():
    assert float(reverse_kl.per_token(STUDENT, TEACHER)) == pytest.approx(REVERSE, abs=1e-6)
    assert float(forward_kl.per_token(STUDENT, TEACHER)) == pytest.approx(FORWARD, abs=1e-6)
    assert pytest.approx(0.1927, abs=1e-4) == REVERSE and pytest.approx(0.2231, abs=1e-4) == FORWARD
    for beta in (0.1, 0.5, 0.9):
        assert float(jsd.per_token(STUDENT, TEACHER, beta)) == pytest.approx(mixture(beta), abs=1e-6)


def test_three_tokens_by_hand_fix_the_sign_and_size_of_each_gradient():
    # Descent lowers token 0, which the student says too often, and raises the two others alike.
    for name in NAMES:
        found = gradient(name, STUDENT, TEACHER)
        assert found[0] > 0 > found[1] and float(found[1]) == pytest.approx(float(found[2]), abs=1e-7)
    assert float(gradient("forward-kl", STUDENT, TEACHER)[0]) == pytest.approx(0.8 - 0.5, abs=1e-6)
    reverse = 0.8 * (math.log(0.8 / 0.5) - REVERSE)
    assert float(gradient("reverse-kl", STUDENT, TEACHER)[0]) == pytest.approx(reverse, abs=1e-6)


def test_the_direction_decides_where_a_narrow_student_goes():
    """A student on one of the teacher's two modes: the forward KL pulls to the other mode, the reverse hardly does."""
    student, teacher = torch.tensor([6.0, 0.0, 0.0]), torch.tensor([3.0, 3.0, 0.0])
    missed = {name: float(gradient(name, student, teacher)[1]) for name in ("forward-kl", "reverse-kl")}
    assert missed["forward-kl"] < -0.4 < -0.02 < missed["reverse-kl"] < 0


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 64), scale=st.sampled_from([0.1, 1.0, 5.0]))
def test_value_and_gradient_are_the_closed_forms(name, seed, size, scale, logits):
    student, teacher = (logits(2, 3, size, seed=i, scale=scale).double() for i in (seed, seed + 1))
    found = value(name, torch.log_softmax(student, -1), torch.log_softmax(teacher, -1))
    assert found.shape == (2, 3) and float(found.min()) >= -1e-12
    torch.testing.assert_close(gradient(name, student, teacher), closed_form(name, student, teacher))


@pytest.mark.parametrize("name", NAMES)
def test_fp32_is_within_1e_6_of_float64(name, logits):
    student, teacher = logits(4, 5, 32, scale=2.0), logits(4, 5, 32, seed=1, scale=2.0)
    found = value(name, torch.log_softmax(student, -1), torch.log_softmax(teacher, -1))
    assert found.dtype == torch.float32
    exact = value(name, torch.log_softmax(student.double(), -1), torch.log_softmax(teacher.double(), -1))
    # Thirty-two fp32 terms of a few nats each.
    torch.testing.assert_close(found.double(), exact, atol=2e-6, rtol=1e-6)
    wanted = closed_form(name, student.double(), teacher.double())
    torch.testing.assert_close(gradient(name, student, teacher).double(), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_finite_differences_agree(name, logits):
    student, teacher, h = logits(4).double(), logits(4, seed=1).double(), 1e-5
    log_t = torch.log_softmax(teacher, -1)
    for i, slope in enumerate(gradient(name, student, teacher)):
        shift = h * torch.eye(4, dtype=torch.float64)[i]
        ends = [float(value(name, torch.log_softmax(student + s * shift, -1), log_t)) for s in (1, -1)]
        # Truncation h^2 = 1e-10, rounding 1e-16 / h = 1e-11.
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(float(slope), abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_equal_distributions_have_no_loss_and_no_gradient(name, logits):
    z = logits(2, 3, 16, scale=2.0)
    log_s = torch.log_softmax(z, -1)
    # logaddexp of two equal halves rounds once; the two directions subtract equal numbers.
    assert float(value(name, log_s, log_s.clone()).abs().max()) <= (1e-6 if name == "jsd" else 0.0)
    # p (0 - KL) is zero; back-propagation cancels p against p sum(p), at fp32 rounding.
    assert float(gradient(name, z, z).abs().max()) < 2e-7


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_reaches_the_teacher(name, logits):
    log_s = torch.log_softmax(logits(1, 1, 4), -1).requires_grad_()
    log_t = torch.log_softmax(logits(1, 1, 4, seed=1), -1).requires_grad_()
    value(name, log_s, log_t).sum().backward()
    assert log_t.grad is None and log_s.grad is not None


def test_swapping_the_arguments_swaps_the_directions():
    assert torch.equal(reverse_kl.per_token(STUDENT, TEACHER), forward_kl.per_token(TEACHER, STUDENT))
    torch.testing.assert_close(jsd.per_token(STUDENT, TEACHER, 0.2), jsd.per_token(TEACHER, STUDENT, 0.8))


def test_near_the_ends_jsd_vanishes_and_only_divided_by_beta_is_a_kl():
    student, teacher = STUDENT.double(), TEACHER.double()
    near, far = jsd.per_token(student, teacher, 1e-5), jsd.per_token(student, teacher, 1 - 1e-5)
    assert float(near) < 1e-5 and float(far) < 1e-5
    # The next order is beta / 2 chi^2 < 1e-5.
    assert float(near) / 1e-5 == pytest.approx(FORWARD, abs=2e-5)
    assert float(far) / 1e-5 == pytest.approx(REVERSE, abs=2e-5)


def test_jsd_stays_finite_and_bounded_where_supports_are_far_apart():
    student, teacher = torch.tensor([80.0, 0.0, 0.0]), torch.tensor([0.0, 80.0, 0.0])
    found = jsd.per_token(torch.log_softmax(student, -1), torch.log_softmax(teacher, -1), 0.5)
    assert float(found) == pytest.approx(math.log(2), abs=1e-6)
    assert gradient("jsd", student, teacher, 0.5).isfinite().all()


def test_no_divergence_of_two_distributions_is_called_none():
    with pytest.raises(ValueError, match="'none'"):
        divergence.per_token(STUDENT, TEACHER, "none")
    with pytest.raises(ValueError, match="'jsd' with beta None"):
        divergence.per_token(STUDENT, TEACHER, "jsd")
