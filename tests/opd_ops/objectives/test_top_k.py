import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_ops.objectives import divergence, student_top_k, teacher_top_k

NAMES = [("reverse-kl", None), ("forward-kl", None), ("jsd", 0.4)]


def buckets(student, teacher, k):
    log_s, log_t = torch.log_softmax(student, -1), torch.log_softmax(teacher, -1)
    ids = log_t.topk(k, dim=-1).indices
    return log_s, log_t, ids, log_t.gather(-1, ids)


def test_three_tokens_by_hand():
    s, t = torch.tensor([[[0.8, 0.1, 0.1]]]), torch.tensor([[[0.3, 0.5, 0.2]]])
    ids = torch.tensor([[[1]]])
    found = teacher_top_k.per_token(s.log(), ids, t.log().gather(-1, ids), "forward-kl")
    assert float(found) == pytest.approx(0.5 * math.log(0.5 / 0.1) + 0.5 * math.log(0.5 / 0.9), abs=1e-6)
    found = teacher_top_k.per_token(s.log(), ids, t.log().gather(-1, ids), "reverse-kl")
    assert float(found) == pytest.approx(0.1 * math.log(0.1 / 0.5) + 0.9 * math.log(0.9 / 0.5), abs=1e-6)


@pytest.mark.parametrize(("name", "beta"), NAMES)
def test_the_coarse_divergence_grows_with_k_to_the_whole(name, beta, logits):
    student, teacher = (logits(3, 2, 12, seed=seed, scale=2.0).double() for seed in (0, 1))
    found, log_s, log_t = [], student, teacher
    for k in range(1, 13):
        log_s, log_t, ids, top = buckets(student, teacher, k)
        found.append(teacher_top_k.per_token(log_s, ids, top, name, beta))
    # Splitting a bucket never lowers a divergence.
    assert all(bool((finer >= coarser - 1e-9).all()) for coarser, finer in pairwise(found))
    torch.testing.assert_close(found[-1], divergence.per_token(log_s, log_t, name, beta), atol=1e-12, rtol=0)
    assert float(found[0].min()) >= 0


@pytest.mark.parametrize(("name", "beta"), NAMES)
@settings(max_examples=40)
@given(gap=st.floats(1, 60), k=st.integers(1, 6), sharp=st.sampled_from(["student", "teacher", "both"]))
def test_vanishing_tails_stay_finite_in_value_and_gradient(name, beta, gap, k, sharp, logits):
    """Down to tails far below fp32's resolution of 1 - mass, on either side."""
    student, teacher = logits(1, 1, 7), logits(1, 1, 7, seed=1)
    student[..., :k] += gap if sharp != "teacher" else 0
    teacher[..., :k] += gap if sharp != "student" else 0
    z = student.clone().requires_grad_()
    _, _, ids, top = buckets(student, teacher, k)
    found = teacher_top_k.per_token(torch.log_softmax(z, -1), ids, top, name, beta)
    found.sum().backward()
    assert bool(found.isfinite().all()) and bool(z.grad.isfinite().all())
    assert found.min().item() > -1e-6
    assert abs(float(z.grad.sum())) < 2e-5, "logits have a free constant"


def test_the_students_tail_keeps_its_digits_where_one_minus_the_mass_has_none():
    """The forward KL pushes T(tail) into the student's tail, however small that is: here e^-40."""
    student = torch.tensor([[[40.0, 0.0, -1.0]]]).requires_grad_()
    teacher = torch.tensor([[[0.6, 0.3, 0.1]]]).log()
    ids = torch.tensor([[[0]]])
    teacher_top_k.per_token(torch.log_softmax(student, -1), ids, teacher.gather(-1, ids), "forward-kl").backward()
    inside = torch.softmax(torch.tensor([0.0, -1.0]), -1)
    torch.testing.assert_close(student.grad[0, 0], torch.tensor([0.4, *(-0.4 * inside)]), atol=1e-6, rtol=0)


def test_a_teachers_tail_below_fp32_is_read_at_its_resolution():
    student, teacher = torch.zeros(1, 1, 2), torch.tensor([[[60.0, 0.0]]])
    log_s, _, ids, top = buckets(student, teacher, 1)
    found = teacher_top_k.per_token(log_s, ids, top, "reverse-kl")
    assert float(found) == pytest.approx(math.log(0.5) + 0.5 * math.log(2.0**24), abs=1e-4)


def test_masked_scores_of_zero_give_a_finite_loss(logits):
    """Scores are 0 where the mask is: the weights' zero must meet no infinity."""
    log_s = torch.log_softmax(logits(1, 2, 5), -1).requires_grad_()
    ids, zeros = torch.zeros(1, 2, 3, dtype=torch.long), torch.zeros(1, 2, 3)
    for name, beta in NAMES:
        found = teacher_top_k.per_token(log_s, ids, zeros, name, beta)
        (found * 0.0).sum().backward()
        assert bool(found.isfinite().all()) and not log_s.grad.any()


@given(x=st.floats(-700, -1e-12))
def test_log1mexp_is_accurate_at_both_ends(x):
    found = float(teacher_top_k.log1mexp(torch.tensor(x, dtype=torch.float64)))
    expected = math.log(-math.expm1(x)) if x > -1 else math.log1p(-math.exp(x))
    assert found == pytest.approx(expected, rel=1e-13, abs=0)


def test_candidates_are_the_students_likeliest_without_gradient(logits):
    z = logits(2, 3, 9).requires_grad_()
    found = student_top_k.candidates(z, 4)
    assert found.shape == (2, 3, 4) and found.dtype == torch.int64 and not found.requires_grad
    assert torch.equal(found, torch.log_softmax(z, -1).topk(4, -1).indices)
    assert student_top_k.candidates(z, 50).shape == (2, 3, 9)


def test_a_sample_inside_the_set_adds_nothing_and_one_outside_its_score(logits):
    log_s = torch.log_softmax(logits(1, 1, 6), -1)
    log_t = torch.log_softmax(logits(1, 1, 6, seed=1), -1)
    ids = student_top_k.candidates(log_s, 2)
    inside = float((log_s.exp() * (log_s - log_t)).gather(-1, ids).sum())
    for y in range(6):
        target = torch.tensor([[y]])
        found = float(student_top_k.per_token(log_s, ids, log_t.gather(-1, ids), target, log_t[..., y]))
        score = float((log_s - log_t)[0, 0, y] * log_s[0, 0, y])
        assert found == pytest.approx(inside + (0 if y in ids else score), abs=1e-6)


def test_no_gradient_reaches_the_teachers_scores(logits):
    log_s = torch.log_softmax(logits(1, 1, 6), -1).requires_grad_()
    ids, y = student_top_k.candidates(log_s, 2), torch.tensor([[5]])
    top, sampled = (torch.full(shape, -1.0).requires_grad_() for shape in ((1, 1, 2), (1, 1)))
    student_top_k.per_token(log_s, ids, top, y, sampled).sum().backward()
    teacher_top_k.per_token(log_s, ids, top, "jsd", 0.5).sum().backward()
    assert top.grad is None and sampled.grad is None and log_s.grad is not None
