from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.objectives import rlvr

REWARDS = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
GROUPS = torch.tensor([0, 0, 0, 0, 1, 1])
MASK = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])


def gradient(z, targets, advantage, weight):
    z = z.clone().requires_grad_()
    rlvr.loss(z, targets, advantage, weight).backward()
    return z.grad


def test_advantages_by_hand():
    centred = torch.tensor([0.5, -0.5, -0.5, 0.5, 0.0, 0.0])
    assert torch.equal(rlvr.advantages(REWARDS, GROUPS, "none"), centred)
    # The group's population deviation is 1/2; the batch's is sqrt(4/6 * 2/6).
    torch.testing.assert_close(rlvr.advantages(REWARDS, GROUPS, "group"), centred / (0.5 + 1e-6))
    torch.testing.assert_close(rlvr.advantages(REWARDS, GROUPS, "batch"), centred / ((8 / 36) ** 0.5 + 1e-6))
    assert rlvr.flat_groups(REWARDS, GROUPS) == 0.5


def test_groups_need_not_be_contiguous_or_numbered_from_zero():
    order = torch.tensor([4, 0, 2, 5, 1, 3])
    for std in ("group", "batch", "none"):
        whole = rlvr.advantages(REWARDS, GROUPS, std)
        torch.testing.assert_close(rlvr.advantages(REWARDS[order], 7 * GROUPS[order] + 3, std), whole[order])


@given(reward=st.floats(-10, 10, width=32), size=st.integers(1, 9), std=st.sampled_from(["group", "batch", "none"]))
def test_a_flat_group_has_exactly_no_gradient(reward, size, std):
    rewards = torch.tensor([reward] * size + [0.0, 1.0])
    groups = torch.tensor([0] * size + [1, 1])
    advantage = rlvr.advantages(rewards, groups, std)
    assert not advantage[:size].any()
    assert advantage[size] == -advantage[size + 1] != 0
    z = torch.randn(size + 2, 2, 5, generator=torch.Generator().manual_seed(size))
    weight = rlvr.weights(torch.ones(size + 2, 2), "sequence", 2)
    assert not gradient(z, torch.zeros(size + 2, 2, dtype=torch.long), advantage, weight)[:size].any()


@given(rewards=st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=12), std=st.sampled_from(["group", "none"]))
def test_advantages_of_a_group_sum_to_zero_and_do_not_see_a_constant(rewards, std):
    r, groups = torch.tensor(rewards), torch.zeros(len(rewards), dtype=torch.long)
    advantage = rlvr.advantages(r, groups, std)
    # Twelve fp32 terms of size at most sqrt(12).
    assert abs(float(advantage.sum())) < 1e-5
    torch.testing.assert_close(rlvr.advantages(r + 1, groups, std), advantage, atol=1e-5, rtol=1e-5)


def test_weights_by_hand():
    n = MASK.sum(1, keepdim=True)
    torch.testing.assert_close(rlvr.weights(MASK, "sequence", 10), MASK / (6 * n))
    torch.testing.assert_close(rlvr.weights(MASK, "token", 10), MASK / 13)
    torch.testing.assert_close(rlvr.weights(MASK, "constant", 10), MASK / 60)


def test_what_each_normaliser_adds_up_to():
    assert float(rlvr.weights(MASK, "sequence", 4).sum()) == pytest.approx(1)
    assert float(rlvr.weights(MASK, "token", 4).sum()) == pytest.approx(1)
    assert float(rlvr.weights(MASK, "constant", 4).sum()) == pytest.approx(13 / 24)


def test_a_row_without_tokens_weighs_nothing():
    mask = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    for normaliser in ("sequence", "token", "constant"):
        weight = rlvr.weights(mask, normaliser, 2)
        assert torch.isfinite(weight).all() and not weight[0].any()


def test_the_gradient_is_a_weighted_p_minus_onehot():
    z = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(5, (6, 4), generator=torch.Generator().manual_seed(1))
    advantage, weight = rlvr.advantages(REWARDS, GROUPS), rlvr.weights(MASK, "sequence", 4)
    one = torch.nn.functional.one_hot(targets, 5)
    expected = (torch.softmax(z.double(), -1) - one) * (advantage[:, None] * weight).double()[..., None]
    torch.testing.assert_close(gradient(z, targets, advantage, weight).double(), expected, atol=1e-6, rtol=0)


def test_masked_positions_change_nothing():
    z = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(6, 4, dtype=torch.long)
    advantage = rlvr.advantages(REWARDS, GROUPS)
    for normaliser in ("sequence", "token", "constant"):
        weight = rlvr.weights(MASK, normaliser, 4)
        before = gradient(z, targets, advantage, weight)
        hidden = MASK == 0
        assert not before[hidden].any()
        noisy, moved = z.clone(), targets.clone()
        noisy[hidden], moved[hidden] = 5.0, 3
        assert torch.equal(before, gradient(noisy, moved, advantage, weight))


@pytest.mark.parametrize("size", [2, 3])
def test_the_expected_gradient_over_all_groups_is_the_policy_gradient(size):
    """One token, 4 actions: E over all 4^G groups = -(1 - 1/G) grad E[r], since the mean contains the sample itself."""
    z = torch.tensor([0.3, -0.5, 1.0, 0.0])
    reward = torch.tensor([0.0, 1.0, 0.3, 0.7])
    p = torch.softmax(z.double(), -1)
    total = torch.zeros(4, dtype=torch.float64)
    for actions in product(range(4), repeat=size):
        chosen = torch.tensor(actions)
        advantage = rlvr.advantages(reward[chosen], torch.zeros(size, dtype=torch.long), "none")
        weight = rlvr.weights(torch.ones(size, 1), "sequence", 1)
        found = gradient(z.expand(size, 1, 4), chosen[:, None], advantage, weight)
        total += p[chosen].prod() * found.sum((0, 1)).double()
    policy = p * (reward - (p * reward).sum())
    torch.testing.assert_close(total, -(1 - 1 / size) * policy, atol=1e-6, rtol=0)


def test_the_expected_gradient_over_all_sequences_of_unequal_length():
    """Two steps of a Markov policy, token 0 ends: E over all pairs of responses, constant normaliser, 1/R_max = 1/2."""
    table = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))  # row 3 is the prompt
    sequences = [(0,), *((a, b) for a in (1, 2) for b in (0, 1, 2))]
    reward = {s: float(sum(s) % 2 == 1) + 0.25 * len(s) for s in sequences}

    def probability(policy, sequence):
        logp = torch.log_softmax(policy, -1)
        return sum(logp[previous, token] for previous, token in zip((3, *sequence), sequence, strict=False)).exp()

    exact = table.double().requires_grad_()
    sum(probability(exact, s) * reward[s] for s in sequences).backward()
    total = torch.zeros(4, 3, dtype=torch.float64)
    for pair in product(sequences, repeat=2):
        targets = torch.tensor([[*s, 0][:2] for s in pair])
        previous = torch.tensor([[3, s[0]] for s in pair])
        mask = torch.tensor([[1.0, float(len(s) == 2)] for s in pair])
        advantage = rlvr.advantages(torch.tensor([reward[s] for s in pair]), torch.zeros(2, dtype=torch.long), "none")
        z = table.clone().requires_grad_()
        rlvr.loss(z[previous], targets, advantage, rlvr.weights(mask, "constant", 2)).backward()
        chance = probability(table.double(), pair[0]) * probability(table.double(), pair[1])
        total += chance * z.grad.double()
    torch.testing.assert_close(total, -0.5 * 0.5 * exact.grad, atol=1e-6, rtol=0)
