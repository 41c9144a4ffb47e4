"""What a teacher in this process says, beside the formula taken token by token."""

import pytest
import torch

from opd_ops.models import assemble
from opd_ops.teacher.local import LocalTeacher
from opd_ops.teacher.scores import Support
from opd_ops.training.batches import collate

PROMPTS, RESPONSES = [[1, 5], [1, 3, 4, 6]], [[7, 6, 2], [2]]
KINDS = [
    Support(kind="full"),
    Support(kind="top", k=3),
    Support(kind="sampled"),
    Support(kind="candidates", k=2),
    Support(kind="full", temperature=0.7),
]


@pytest.fixture
def batch():
    return collate(PROMPTS, RESPONSES, 0)


@pytest.fixture
def teacher(model):
    return LocalTeacher(model, "digest")


def truth(model, temperature, vocabulary=8):
    """log T of every response position, one sequence at a time."""
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        logits = model(torch.tensor([[*prompt, *response]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        yield torch.log_softmax(logits[:, :vocabulary].double() / temperature, -1)


@pytest.mark.parametrize("support", KINDS, ids=lambda s: f"{s.kind}-{s.temperature:g}")
def test_scores_are_the_teachers_log_probabilities(support, teacher, batch, model):
    candidates = torch.tensor([3, 5]).expand(2, 3, 2) if support.kind == "candidates" else None
    found = teacher.score(batch, support, candidates)
    assert not found.sampled.requires_grad
    for row, log_t in enumerate(truth(model, support.temperature)):
        said = {name: x[row, : len(log_t)] for name, x in vars(found).items() if x is not None}
        assert near(said["sampled"], log_t[range(len(log_t)), RESPONSES[row]])
        assert near(said["entropy"], -(log_t.exp() * log_t).sum(-1))
        if support.kind == "full":
            assert near(said["full"], log_t)
        if support.kind == "top":
            assert near(said["top"], log_t.topk(3).values)
        if support.kind in ("top", "candidates"):
            assert near(said["top"], log_t.gather(-1, said["ids"]))


def near(found, expected):
    return torch.allclose(found.double(), expected, atol=1e-5)


@pytest.mark.parametrize("support", KINDS, ids=lambda s: f"{s.kind}-{s.temperature:g}")
def test_positions_without_a_token_are_zero_to_the_bit(support, teacher, batch):
    candidates = torch.tensor([3, 5]).expand(2, 3, 2) if support.kind == "candidates" else None
    for name, tensor in vars(teacher.score(batch, support, candidates)).items():
        if tensor is not None:
            outside = tensor[batch.mask == 0]
            assert not outside.any() and not torch.signbit(outside.float()).any(), name


def test_padding_of_the_embedding_is_no_token(model, batch, weights):
    wide = {name: w.clone() for name, w in weights(0)[1].items()}
    narrow = LocalTeacher(assemble(weights(0)[0], wide, torch.float32), "digest", vocabulary=6)
    found = narrow.score(batch, Support(kind="full"))
    assert found.full.shape[-1] == 6
    assert torch.allclose(found.full[0].exp().sum(-1), torch.ones(3))
    for row, log_t in enumerate(truth(model, 1.0, vocabulary=6)):
        assert torch.allclose(found.full[row, : len(log_t)].double(), log_t, atol=1e-5)


def test_a_teacher_reads_its_own_prompts_and_the_students_responses(teacher):
    longer = [[1, 4, 4, 6, 1, 5], [1, 7, 1, 3, 4, 6]]
    plain = teacher.score(collate(PROMPTS, RESPONSES, 0), Support(kind="sampled"))
    told = teacher.score(collate(longer, RESPONSES, 0), Support(kind="sampled"))
    assert plain.sampled.shape == told.sampled.shape
    assert not torch.allclose(plain.sampled[0], told.sampled[0], atol=1e-3)
