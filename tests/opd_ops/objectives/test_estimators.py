"""The expected gradient of every estimator, by enumeration, against autograd of the divergence it declares."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_ops.objectives import importance
from opd_ops.recipe.opd import FOLLOWS, SAMPLED, TOP_K

V = 7
PAIRS = [(e, d) for e, follows in FOLLOWS.items() for d in follows]
EXACT = dict(atol=1e-6, rtol=0)  # fp32: seven terms of order one


def declared(name, s, t, beta=0.3):
    """The divergence of two probability vectors, from its formula."""
    kl = lambda p, q: (p * (p / q).log()).sum(-1)
    m = beta * t + (1 - beta) * s
    return {
        "reverse-kl": lambda: kl(s, t),
        "none": lambda: kl(s, t),  # on the student's own samples the paper's form is the reverse KL
        "forward-kl": lambda: kl(t, s),
        "jsd": lambda: beta * kl(t, m) + (1 - beta) * kl(s, m),
    }[name]()


def coarse(p, ids):
    return torch.cat([p[ids], 1 - p[ids].sum(-1, keepdim=True)]) if len(ids) < len(p) else p[ids]


def exact(spec, student, teacher):
    """float64 gradient of the declared divergence on the student's logits [V]."""
    z = student.double().requires_grad_()
    s, t = (torch.softmax(x / spec.loss_temperature, -1) for x in (z, teacher.double()))
    if spec.estimator == "teacher-top-k":
        ids = t.topk(min(spec.k, len(t))).indices
        s, t = coarse(s, ids), coarse(t, ids)
    declared(spec.divergence, s, t).backward()
    return z.grad


@pytest.mark.parametrize(("estimator", "divergence"), PAIRS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), temperature=st.sampled_from([0.7, 1.0, 1.5]))
def test_the_expected_gradient_is_the_declared_divergences(
    estimator, divergence, seed, temperature, logits, spec, expected
):
    chosen = spec(estimator, divergence, loss_temperature=temperature)
    student, teacher = logits(V, seed=seed), logits(V, seed=seed + 1)
    found = expected(chosen, student, teacher)
    torch.testing.assert_close(found.double(), exact(chosen, student, teacher), **EXACT)
    assert abs(float(found.sum())) < 1e-6, "logits have a free constant"


def resolved(spec, student, teacher):
    """What fp32 tells of a gradient: 1e-6 of the largest log ratio, where that is above one.

    A teacher's tail is 1 minus its K probabilities: known to 2^-24, it moves the tail's log ratio by 2^-24 over itself,
    and the gradient by that times the student's tail.
    """
    s, t = (torch.softmax(x.double() / spec.loss_temperature, -1) for x in (student, teacher))
    tail = 0.0
    if spec.estimator == "teacher-top-k":
        ids = t.topk(spec.k).indices
        s, t = coarse(s, ids), coarse(t, ids)
        tail = 2.0**-24 * float(s[-1] / t[-1]) / spec.loss_temperature
    return 1e-6 * max(1.0, float((s / t).log().abs().max())) + tail


@pytest.mark.parametrize(
    ("estimator", "seed"),
    [("teacher-top-k", 4008), ("full", 318)],  # a small tail of the teacher; a log ratio of five
)
def test_what_fp32_does_not_keep_to_1e_6_is_within_its_resolution(estimator, seed, logits, spec, expected):
    """35 of 30,003 draws of the teacher's top-k are off, by up to 3.2e-6; of the full vocabulary, few by 1.4e-6."""
    chosen = spec(estimator, "reverse-kl", loss_temperature=0.7)
    student, teacher = logits(V, seed=seed), logits(V, seed=seed + 1)
    found, bound = expected(chosen, student, teacher), resolved(chosen, student, teacher)
    torch.testing.assert_close(found.double(), exact(chosen, student, teacher), atol=bound, rtol=0)


@pytest.mark.parametrize("k", range(1, V + 1))
@pytest.mark.parametrize(("estimator", "divergence"), [pair for pair in PAIRS if pair[0] in TOP_K])
def test_top_k_follows_its_divergence_for_every_k(estimator, divergence, k, logits, spec, expected):
    student, teacher = logits(V, scale=1.5), logits(V, seed=1, scale=1.5)
    chosen = spec(estimator, divergence, k=k)
    torch.testing.assert_close(
        expected(chosen, student, teacher).double(), exact(chosen, student, teacher), atol=2e-6, rtol=0
    )
    if k == V or estimator == "student-top-k":
        full = expected(spec("full", divergence), student, teacher)
        torch.testing.assert_close(expected(chosen, student, teacher), full, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("estimator", "divergence"), PAIRS)
def test_a_teacher_equal_to_the_student_gives_no_gradient(estimator, divergence, logits, spec, expected, signal):
    for k in (1, 3, V) if estimator in TOP_K else (None,):
        chosen = spec(estimator, divergence, **({"k": k} if k else {}))
        z = logits(V, scale=2.0)
        # Log ratios are exact zeros; sums over the vocabulary, and one minus the mass of a set, round.
        assert float(expected(chosen, z, z).abs().max()) < (5e-7 if estimator == "teacher-top-k" else 2e-7)
        if estimator in SAMPLED:
            assert not expected(chosen, z, z.clone()).any()
            rows = z.expand(V, 1, V).clone().requires_grad_()
            signal(chosen, rows, rows.detach(), torch.arange(V)[:, None]).per_token.sum().backward()
            assert not rows.grad.any(), "every single sample, not only the mean"


@pytest.mark.parametrize(("estimator", "divergence"), PAIRS)
def test_another_teacher_changes_the_gradient(estimator, divergence, logits, spec, expected):
    chosen = spec(estimator, divergence)
    student, teacher = logits(V), logits(V, seed=1)
    found = expected(chosen, student, teacher)
    for other in (teacher.flip(0), logits(V, seed=2)):
        assert float((found - expected(chosen, student, other)).norm()) > 0.1 * float(found.norm())


def two_positions(spec, signal, first, second, teacher_first, teacher_second):
    """Expected gradients on the logits of position 1 [V] and of position 2 after each token [V, V]."""
    size = len(first)
    tables = [x.clone().requires_grad_() for x in (first, second)]
    y = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    rows = lambda one, two: torch.stack([one.expand(len(y), size), two[y[:, 0]]], 1)
    log_p = torch.log_softmax(rows(first, second), -1).gather(-1, y[..., None])[..., 0]
    found = signal(spec, rows(*tables), rows(teacher_first, teacher_second), y).per_token
    (found.sum(1) * log_p.sum(1).exp()).sum().backward()
    return [x.grad for x in tables]


@pytest.mark.parametrize("estimator", [e for e, follows in FOLLOWS.items() if "reverse-kl" in follows])
def test_two_positions_follow_the_divergence_on_fixed_prefixes(estimator, logits, spec, signal):
    """And not the sequence's KL, whose first position also pays for where it leads."""
    size = 4
    tables = [logits(size), logits(size, size, seed=1), logits(size, seed=2), logits(size, size, seed=3)]
    found = two_positions(spec(estimator, k=size) if estimator in TOP_K else spec(estimator), signal, *tables)

    def reference(fixed):
        first, second = (x.double().requires_grad_() for x in tables[:2])
        s, t = torch.softmax(first, -1), torch.softmax(tables[2].double(), -1)
        s2, t2 = torch.softmax(second, -1), torch.softmax(tables[3].double(), -1)
        prefix = s.detach() if fixed else s
        (declared("reverse-kl", s, t) + (prefix * declared("reverse-kl", s2, t2)).sum()).backward()
        return first.grad, second.grad

    for part, wanted in zip(found, reference(True), strict=True):
        torch.testing.assert_close(part.double(), wanted, **EXACT)
    assert float((found[0].double() - reference(False)[0]).norm()) > 1e-2


@pytest.mark.parametrize(
    ("estimator", "k"),
    [("policy-gradient", None), ("k2", None), ("student-top-k", 1), ("student-top-k", 3), ("student-top-k", V)],
)
def test_other_rollouts_need_importance_weights_and_uncut_are_exact(estimator, k, logits, spec, expected):
    chosen = spec(estimator, k=k)
    student, teacher, other = logits(V), logits(V, seed=1), logits(V, seed=2)
    log_q, log_s = torch.log_softmax(other, -1), torch.log_softmax(student, -1)
    wanted = exact(chosen, student, teacher)
    w = importance.weights(log_s, log_q, None)
    torch.testing.assert_close(expected(chosen, student, teacher, log_q.exp() * w).double(), wanted, **EXACT)
    if k != V:  # with the whole vocabulary nothing is sampled
        plain = expected(chosen, student, teacher, log_q.exp())
        assert float((plain.double() - wanted).norm()) > 0.1 * float(wanted.norm())
    cut = expected(chosen, student, teacher, log_q.exp() * importance.weights(log_s, log_q, 1.0))
    assert float((cut.double() - wanted).norm()) > 0.01 * float(wanted.norm()), "a cap is a bias"


def test_student_top_k_has_less_variance_the_larger_its_set(logits, spec, signal):
    student, teacher = logits(V, scale=2.0), logits(V, seed=1, scale=2.0)
    p = torch.softmax(student, -1)

    def variance(chosen):
        z = student.expand(V, 1, V).clone().requires_grad_()
        signal(chosen, z, teacher.expand(V, 1, V), torch.arange(V)[:, None]).per_token.sum().backward()
        g = z.grad[:, 0]
        return float((p * (g - p @ g).square().sum(-1)).sum())

    found = [variance(spec("policy-gradient")), *(variance(spec("student-top-k", k=k)) for k in (1, 3, 5, V))]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 1e-12 < found[0]
    assert variance(spec("k2")) == pytest.approx(found[0], rel=1e-5)
