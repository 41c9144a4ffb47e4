"""The step's weights: what each normaliser adds up to, and that a gradient knows neither micro-batches nor padding."""

import pytest
import torch

from opd_ops.objectives import rlvr, sft
from opd_ops.objectives.objective import log_softmax, token_logprobs, weights

NORMALISERS = ["token", "sequence", "constant"]
MASK = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
REWARDS, GROUPS = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 1.0]), torch.tensor([0, 0, 0, 0, 1, 1])
LOSSES = ["sft", "rlvr", "full", "policy-gradient", "k2", "teacher-top-k", "student-top-k"]
V = 9


def test_weights_by_hand():
    torch.testing.assert_close(weights(MASK, "token", 10), MASK / 13)
    torch.testing.assert_close(weights(MASK, "sequence", 10), MASK / (6 * MASK.sum(1, keepdim=True)))
    torch.testing.assert_close(weights(MASK, "constant", 10), MASK / 60)


def test_what_each_normaliser_adds_up_to():
    assert float(weights(MASK, "token", 4).sum()) == pytest.approx(1)
    assert float(weights(MASK, "sequence", 4).sum()) == pytest.approx(1)
    assert float(weights(MASK, "constant", 4).sum()) == pytest.approx(13 / 24)


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_a_sequence_without_tokens_weighs_nothing_and_is_not_counted(normaliser):
    longer = torch.cat([MASK, torch.zeros(2, 4)])
    assert torch.equal(weights(longer, normaliser, 4), torch.cat([weights(MASK, normaliser, 4), torch.zeros(2, 4)]))
    assert not weights(torch.zeros(2, 3), normaliser, 4).any()


@pytest.fixture
def gradient(spec, signal):
    """gradient(loss, normaliser, student, teacher, targets, mask, rows): of a step in micro-batches of `rows`."""

    def per_token(name, z, teacher, targets, advantage):
        if name == "sft":
            return sft.per_token(log_softmax(z), targets)
        if name == "rlvr":
            behaviour = token_logprobs(teacher, targets)
            return rlvr.per_token(token_logprobs(z, targets), behaviour, advantage, (0.2, 0.28))[0]
        return signal(spec(name), z, teacher, targets).per_token

    def step(name, normaliser, student, teacher, targets, mask, rows):
        z = student.clone().requires_grad_()
        whole, advantage = weights(mask, normaliser, 6), rlvr.advantages(REWARDS, GROUPS)
        for begin in range(0, len(z), rows):
            part = slice(begin, begin + rows)
            loss = per_token(name, z[part], teacher[part], targets[part], advantage[part])
            (loss * whole[part]).sum().backward()
        return z.grad

    return step


@pytest.fixture
def step(logits):
    """(student, teacher, targets, mask) of a step."""
    targets = torch.randint(V, MASK.shape, generator=torch.Generator().manual_seed(2))
    return logits(6, 4, V), logits(6, 4, V, seed=1), targets, MASK


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_does_not_depend_on_the_micro_batches(name, normaliser, gradient, step):
    whole = gradient(name, normaliser, *step, 6)
    assert float(whole.norm()) > 1e-3
    for rows in (1, 2, 4):
        torch.testing.assert_close(gradient(name, normaliser, *step, rows), whole, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_does_not_depend_on_padding(name, normaliser, gradient, step, logits):
    """Wider padding, other values in it, and more rows of nothing but padding."""
    student, teacher, targets, mask = step
    before = gradient(name, normaliser, *step, 6)
    assert not before[mask == 0].any()
    pad = lambda x, seed: torch.cat([torch.where(mask[..., None] > 0, x, x + 3), logits(6, 3, V, seed=seed)], 1)
    wider = torch.cat([targets, torch.zeros(6, 3, dtype=torch.long)], 1), torch.cat([mask, torch.zeros(6, 3)], 1)
    after = gradient(name, normaliser, pad(student, 5), pad(teacher, 6), *wider, 6)
    torch.testing.assert_close(after[:, :4], before, atol=1e-7, rtol=1e-6)
    assert not after[wider[1] == 0].any()
