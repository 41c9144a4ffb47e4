"""Why `recipe.objective.NEVER` is never: what other trainers offer, measured by enumeration in float64.

One position, V tokens, s the student, T the teacher, y ~ s; gradients on the student's logits.
"""

import pytest
import torch

from opd_ops.objectives import divergence
from opd_ops.recipe.opd import NEVER

V = 64


@pytest.fixture
def pair(logits):
    """(student, teacher) logits [V] float64 by seed."""
    return lambda seed: (logits(V, seed=2 * seed).double(), logits(V, seed=2 * seed + 1).double())


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def mean(student, loss):
    """Expected gradient of loss(log s [V] with grad) [V], entry y for the sampled token y."""
    z = student.clone().requires_grad_()
    log_s = torch.log_softmax(z, -1)
    (loss(log_s) * log_s.exp().detach()).sum().backward()
    return z.grad


def exact(name, student, teacher):
    z = student.clone().requires_grad_()
    divergence.per_token(torch.log_softmax(z, -1), torch.log_softmax(teacher, -1), name).backward()
    return z.grad


def k3(log_s, log_t):
    return (log_t - log_s).exp() - 1 - (log_t - log_s)


def test_every_refusal_is_measured_here():
    measured = {"k1", "k3", "k3-policy-gradient", "divergence-policy-gradient", "top-k"}
    assert set(NEVER) == measured


@pytest.mark.parametrize("seed", range(5))
def test_back_propagated_k1_has_no_expected_gradient_whatever_the_teacher(seed, pair):
    student, teacher = pair(seed)
    log_t = torch.log_softmax(teacher, -1)
    found = mean(student, lambda log_s: log_s - log_t)
    assert float(found.norm()) < 1e-12 < 1e-2 < float(exact("reverse-kl", student, teacher).norm())
    # Not one sample's gradient knows the teacher.
    assert torch.equal(found, mean(student, lambda log_s: log_s - log_t.flip(0)))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_offered_instead_follows_the_reverse_kl(seed, pair):
    student, teacher = pair(seed)
    log_t, wanted = torch.log_softmax(teacher, -1), exact("reverse-kl", student, teacher)
    policy_gradient = mean(student, lambda log_s: (log_s - log_t).detach() * log_s)
    k2 = mean(student, lambda log_s: 0.5 * (log_s - log_t).square())
    torch.testing.assert_close(policy_gradient, wanted, atol=1e-12, rtol=0)
    torch.testing.assert_close(k2, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_back_propagated_k3_is_the_forward_kl(seed, pair):
    student, teacher = pair(seed)
    found = mean(student, lambda log_s: k3(log_s, torch.log_softmax(teacher, -1)))
    torch.testing.assert_close(found, exact("forward-kl", student, teacher), atol=1e-12, rtol=0)
    assert cosine(found, exact("reverse-kl", student, teacher)) < 0.98


def test_k3_as_an_advantage_can_point_against_the_reverse_kl(pair):
    """k3 is large wherever s and T differ, so it also lowers the tokens that the teacher says more often."""
    as_advantage = lambda log_t: lambda log_s: k3(log_s, log_t).detach() * log_s
    student, teacher = torch.tensor([0.8, 0.1, 0.1]).double().log(), torch.tensor([0.2, 0.7, 0.1]).double().log()
    assert cosine(mean(student, as_advantage(teacher)), exact("reverse-kl", student, teacher)) < -0.4
    draws = [pair(seed) for seed in range(50)]
    found = [cosine(mean(s, as_advantage(torch.log_softmax(t, -1))), exact("reverse-kl", s, t)) for s, t in draws]
    assert max(found) < 0.99


def test_a_divergence_as_advantage_can_push_the_sampled_token_the_wrong_way():
    """The student hardly says a token that the teacher likes; when it is drawn, its probability is lowered."""
    student, teacher = torch.tensor([0.8, 0.1, 0.1]).double().log(), torch.tensor([0.2, 0.7, 0.1]).double().log()
    for name in ("reverse-kl", "forward-kl"):
        z = student.clone().requires_grad_()
        log_s = torch.log_softmax(z, -1)
        (divergence.per_token(log_s, teacher, name).detach() * log_s[1]).backward()
        assert z.grad[1] > 0, "descent lowers token 1"
        assert float(exact(name, student, teacher)[1]) < 0, "and the divergence asks for more of it"
        # One advantage for every token says nothing about any: its mean gradient is zero.
        whole = mean(student, lambda log_s, name=name: divergence.per_token(log_s, teacher, name).detach() * log_s)
        assert float(whole.norm()) < 1e-12


@pytest.mark.parametrize(("name", "sign"), [("forward-kl", 1), ("reverse-kl", -1)])
def test_a_top_k_set_without_a_tail_moves_mass_at_a_teacher_equal_to_the_student(name, sign, pair):
    student, _ = pair(0)
    ids = student.topk(8).indices
    z = student.clone().requires_grad_()
    log_s = torch.log_softmax(z, -1)
    divergence.per_token(log_s[ids], log_s[ids].detach(), name).backward()
    into = -float(z.grad[ids].sum())  # what a step of descent adds to the set's logits
    mass = float(torch.softmax(student, -1)[ids].sum())
    # The gradient is that of -+ the set's mass: mass (1 - mass) flows into the set, or out of it.
    assert into == pytest.approx(sign * mass * (1 - mass), abs=1e-12)
    assert mass * (1 - mass) > 0.2


def test_a_top_k_set_without_a_tail_is_no_divergence(pair):
    student, teacher = pair(1)
    log_s, log_t = torch.log_softmax(student, -1), torch.log_softmax(teacher, -1)
    ids = log_s.topk(8).indices
    assert float(divergence.per_token(log_s[ids], log_t[ids], "forward-kl")) < 0
