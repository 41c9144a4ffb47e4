"""The dispatcher: what is asked of the teacher, what a micro-batch says, and what it costs."""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from opd_ops.objectives import opd
from opd_ops.recipe.opd import FOLLOWS
from opd_ops.teacher.scores import Support

PAIRS = [(e, d) for e, follows in FOLLOWS.items() for d in follows]
TARGETS = torch.tensor([[1, 0, 4], [3, 2, 2]])
V = 9


@pytest.fixture
def pair(logits):
    return logits(2, 3, V, scale=2.0), logits(2, 3, V, seed=1, scale=2.0)


def gradient(loss, z):
    z.grad = None
    loss.sum().backward()
    return z.grad


def shared(a, b):
    """How many ids two sets [B, R, k] have in common, [B, R]."""
    count = lambda x, y: float(len(set(x) & set(y)))
    rows = [[count(*sets) for sets in zip(*row, strict=True)] for row in zip(a.tolist(), b.tolist(), strict=True)]
    return torch.tensor(rows)


def test_what_each_estimator_asks_of_the_teacher(spec):
    at = dict(loss_temperature=0.7)
    assert opd.support(spec("full", **at)) == Support(kind="full", temperature=0.7)
    assert opd.support(spec("policy-gradient", **at)) == Support(kind="sampled", temperature=0.7)
    assert opd.support(spec("k2", **at)) == Support(kind="sampled", temperature=0.7)
    assert opd.support(spec("teacher-top-k", k=5, **at)) == Support(kind="top", k=5, temperature=0.7)
    assert opd.support(spec("student-top-k", k=5, **at)) == Support(kind="candidates", k=5, temperature=0.7)


def test_only_the_students_top_k_names_candidates(spec, pair):
    student, _ = pair
    for estimator in FOLLOWS:
        found = opd.candidates(spec(estimator, k=2) if estimator.endswith("top-k") else spec(estimator), student)
        if estimator == "student-top-k":
            assert torch.equal(found, student.topk(2, -1).indices)
        else:
            assert found is None


@pytest.mark.parametrize(("estimator", "divergence"), PAIRS)
def test_everything_is_fp32_of_the_responses_shape_and_only_the_loss_has_a_gradient(
    estimator, divergence, spec, signal, pair
):
    student, teacher = pair
    z = student.bfloat16().requires_grad_()
    found = signal(spec(estimator, divergence), z, teacher, TARGETS)
    for name, value in vars(found).items():
        if value is not None:
            assert value.dtype == torch.float32 and value.shape == (2, 3), name
            assert value.requires_grad == (name == "per_token"), name
    whole = signal(spec(estimator, divergence), student.bfloat16().float(), teacher, TARGETS)
    assert torch.equal(found.per_token, whole.per_token), "bf16 logits are scored in fp32"


def test_gap_kl_and_entropy_are_what_they_say(spec, signal, pair):
    student, teacher = pair
    for temperature in (1.0, 0.7):
        log_s, log_t = (torch.log_softmax(x.double() / temperature, -1) for x in pair)
        gap = (log_s - log_t).gather(-1, TARGETS[..., None])[..., 0]
        kl = (log_s.exp() * (log_s - log_t)).sum(-1)
        close = lambda found, wanted: torch.testing.assert_close(found.double(), wanted, atol=2e-6, rtol=0)
        for estimator, divergence in PAIRS:
            found = signal(spec(estimator, divergence, loss_temperature=temperature), student, teacher, TARGETS)
            close(found.log_ratio, gap)
            close(found.student_entropy, -(log_s.exp() * log_s).sum(-1))
            close(found.kl, kl if estimator == "full" else gap)


def test_the_mean_gap_over_samples_is_the_kl(spec, signal, logits):
    student, teacher = logits(1, 1, V).expand(V, 1, V), logits(1, 1, V, seed=1).expand(V, 1, V)
    y = torch.arange(V)[:, None]
    sampled, full = (signal(spec(name), student, teacher, y) for name in ("policy-gradient", "full"))
    p = torch.softmax(student[0, 0], -1)
    assert float((p * sampled.kl[:, 0]).sum()) == pytest.approx(float(full.kl[0, 0]), abs=1e-6)


@pytest.mark.parametrize("estimator", ["teacher-top-k", "student-top-k"])
def test_masses_of_a_top_k_set(estimator, spec, signal, pair):
    student, teacher = pair
    s, t = torch.softmax(student, -1), torch.softmax(teacher, -1)
    ids = (t if estimator == "teacher-top-k" else s).topk(3, -1).indices
    found = signal(spec(estimator, k=3), student, teacher, TARGETS)
    torch.testing.assert_close(found.student_mass, s.gather(-1, ids).sum(-1))
    torch.testing.assert_close(found.teacher_mass, t.gather(-1, ids).sum(-1))
    if estimator == "student-top-k":
        assert found.overlap is None, "the teacher's own top-k is not known"
    else:
        assert torch.equal(found.overlap, shared(s.topk(3, -1).indices, ids) / 3)


def test_masses_of_the_whole_vocabulary_are_of_the_students_sixteen_likeliest(spec, signal, logits):
    student, teacher = logits(1, 2, 40, scale=2.0), logits(1, 2, 40, seed=1, scale=2.0)
    ids = student.topk(16, -1).indices
    found = signal(spec(), student, teacher, torch.zeros(1, 2, dtype=torch.long))
    torch.testing.assert_close(found.student_mass, torch.softmax(student, -1).gather(-1, ids).sum(-1))
    torch.testing.assert_close(found.teacher_mass, torch.softmax(teacher, -1).gather(-1, ids).sum(-1))
    common = shared(ids, teacher.topk(16, -1).indices)
    assert torch.equal(found.overlap, common / 16)
    assert float(common.min()) > 0 and float(common.max()) < 16


def test_equal_distributions_overlap_wholly_and_a_small_vocabulary_has_mass_one(spec, signal, pair):
    student, _ = pair
    for estimator in ("full", "teacher-top-k"):
        assert torch.equal(signal(spec(estimator), student, student, TARGETS).overlap, torch.ones(2, 3))
    torch.testing.assert_close(signal(spec(), student, student, TARGETS).student_mass, torch.ones(2, 3))


@pytest.mark.parametrize("estimator", ["policy-gradient", "k2"])
def test_the_sampled_token_alone_tells_no_masses(estimator, spec, signal, pair):
    found = signal(spec(estimator), *pair, TARGETS)
    assert (found.student_mass, found.teacher_mass, found.overlap) == (None, None, None)


@pytest.mark.parametrize("estimator", FOLLOWS)
def test_padding_columns_of_the_student_are_cut_off_before_the_softmax(estimator, spec, scores, pair):
    """Same-family models pad their vocabularies differently; logits of the padding are whatever they are."""
    student, teacher = pair
    chosen = spec(estimator)
    found = []
    for padding in (None, torch.full((2, 3, 4), 50.0)):
        z = (student if padding is None else torch.cat([student, padding], -1)).clone().requires_grad_()
        ids = opd.candidates(chosen, z, V)
        given = scores(chosen, teacher, TARGETS, ids)
        one = opd.signal(chosen, z, given, TARGETS, ids, None if estimator == "full" else V)
        found.append((one.per_token, one.kl, one.student_entropy, gradient(one.per_token, z)))
    for narrow, wide in zip(*found, strict=True):
        assert torch.equal(narrow, wide[..., :V])
    assert not found[1][-1][..., V:].any()


def test_a_teacher_wider_than_the_student_is_an_error(spec, scores, pair):
    student, teacher = pair
    with pytest.raises(ValueError, match="scored 9 tokens, and the student knows 8"):
        opd.signal(spec(), student[..., :8], scores(spec(), teacher, TARGETS), TARGETS)


@pytest.mark.parametrize("estimator", ["full", "teacher-top-k", "student-top-k"])
def test_scores_of_another_support_are_an_error(estimator, spec, scores, pair):
    student, teacher = pair
    with pytest.raises(ValueError, match=rf"'{estimator}' needs .*kind="):
        opd.signal(spec(estimator), student, scores(spec("k2"), teacher, TARGETS), TARGETS)


@pytest.mark.parametrize(("estimator", "divergence"), PAIRS)
def test_the_loss_temperature_scales_the_students_logits(estimator, divergence, spec, signal, pair):
    student, teacher = pair
    hot = signal(spec(estimator, divergence, loss_temperature=2.0), student, teacher, TARGETS)
    scaled = signal(spec(estimator, divergence), student / 2, teacher / 2, TARGETS)
    assert torch.equal(hot.per_token, scaled.per_token)
    assert not torch.equal(hot.per_token, signal(spec(estimator, divergence), student, teacher, TARGETS).per_token)


@pytest.mark.parametrize(("estimator", "divergence"), PAIRS)
def test_scores_of_zero_under_the_mask_are_finite_and_move_nothing(estimator, divergence, spec, scores, pair):
    student, teacher = pair
    chosen, z = spec(estimator, divergence), student.clone().requires_grad_()
    ids = opd.candidates(chosen, z)
    given = scores(chosen, teacher, TARGETS, ids)
    blank = {f.name: getattr(given, f.name) for f in dataclasses.fields(given)}
    blank = {name: None if x is None else torch.zeros_like(x) for name, x in blank.items()}
    found = opd.signal(chosen, z, dataclasses.replace(given, **blank), TARGETS, ids)
    assert all(bool(x.isfinite().all()) for x in vars(found).values() if x is not None)
    zero = gradient(found.per_token * 0.0, z)
    assert zero is not None and not zero.any()


class Counting(TorchDispatchMode):
    """Calls of log_softmax, and results of at least `size` elements that are no views."""

    def __init__(self, size):
        super().__init__()
        self.size, self.softmaxes, self.large = size, 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.softmaxes += func.overloadpacket is torch.ops.aten._log_softmax
        fresh = isinstance(out, torch.Tensor) and out.numel() >= self.size
        inputs = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
        if fresh and out.untyped_storage().data_ptr() not in inputs:
            self.large.append(str(func))
        return out


# Everyone: the log-softmax, and exp for the entropy. A reverse KL is exp, difference and product; the mixture's two
# shifts, logaddexp and two KLs; the teacher's top-k masks its set out. `kl` costs one more reverse KL.
LARGE = {
    ("full", "reverse-kl"): 2 + 3,
    ("full", "forward-kl"): 2 + 3 + 3,
    ("full", "jsd"): 2 + 9 + 3,
    ("teacher-top-k", "reverse-kl"): 2 + 1,
    ("teacher-top-k", "forward-kl"): 2 + 1,
    ("teacher-top-k", "jsd"): 2 + 1,
}


@pytest.mark.parametrize(("estimator", "divergence"), PAIRS)
def test_one_softmax_and_few_tensors_of_the_vocabulary(estimator, divergence, spec, scores, logits):
    z, teacher = logits(2, 3, 1000).requires_grad_(), logits(2, 3, 1000, seed=1)
    chosen = spec(estimator, divergence)
    ids = opd.candidates(chosen, z)
    given = scores(chosen, teacher, TARGETS, ids)
    with Counting(z.numel()) as counted:
        opd.signal(chosen, z, given, TARGETS, ids)
    assert counted.softmaxes == 1
    assert len(counted.large) == LARGE.get((estimator, divergence), 2), counted.large
