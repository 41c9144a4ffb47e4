from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_ops.objectives import rlvr
from opd_ops.objectives.objective import token_logprobs, weights

REWARDS = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
GROUPS = torch.tensor([0, 0, 0, 0, 1, 1])
MASK = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
STDS, NORMALISERS = ["group", "batch", "none"], ["sequence", "token", "constant"]


def gradient(z, targets, advantage, weight, behaviour=None, clip=None):
    z = z.clone().requires_grad_()
    loss, _ = rlvr.per_token(token_logprobs(z, targets), behaviour, advantage, clip)
    (loss * weight).sum().backward()
    return z.grad


def test_advantages_by_hand():
    centred = torch.tensor([0.5, -0.5, -0.5, 0.5, 0.0, 0.0])
    assert torch.equal(rlvr.advantages(REWARDS, GROUPS, "none"), centred)
    # The group's population deviation is 1/2; the batch's is sqrt(4/6 * 2/6).
    torch.testing.assert_close(rlvr.advantages(REWARDS, GROUPS, "group"), centred / (0.5 + 1e-6))
    torch.testing.assert_close(rlvr.advantages(REWARDS, GROUPS, "batch"), centred / ((8 / 36) ** 0.5 + 1e-6))
    assert rlvr.zero_variance_groups(REWARDS, GROUPS) == 0.5
    assert rlvr.has_variance(REWARDS, GROUPS).tolist() == [True] * 4 + [False] * 2


def test_groups_need_not_be_contiguous_or_numbered_from_zero():
    order = torch.tensor([4, 0, 2, 5, 1, 3])
    for std in STDS:
        whole = rlvr.advantages(REWARDS, GROUPS, std)
        torch.testing.assert_close(rlvr.advantages(REWARDS[order], 7 * GROUPS[order] + 3, std), whole[order])
    kept = rlvr.has_variance(REWARDS[order], 7 * GROUPS[order] + 3)
    assert torch.equal(kept, rlvr.has_variance(REWARDS, GROUPS)[order])


@settings(max_examples=40)
@given(reward=st.floats(-10, 10, width=32), size=st.integers(1, 9), std=st.sampled_from(STDS))
def test_a_flat_group_has_exactly_no_gradient_and_is_not_kept(reward, size, std):
    rewards = torch.tensor([reward] * size + [0.0, 1.0])
    groups = torch.tensor([0] * size + [1, 1])
    advantage = rlvr.advantages(rewards, groups, std)
    assert not advantage[:size].any()
    assert advantage[size] == -advantage[size + 1] != 0
    assert rlvr.has_variance(rewards, groups).tolist() == [False] * size + [True, True]
    assert rlvr.zero_variance_groups(rewards, groups) == 0.5
    z = torch.randn(size + 2, 2, 5, generator=torch.Generator().manual_seed(size))
    weight = weights(torch.ones(size + 2, 2), "sequence", 2)
    assert not gradient(z, torch.zeros(size + 2, 2, dtype=torch.long), advantage, weight)[:size].any()


@settings(max_examples=40)
@given(rewards=st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=12), std=st.sampled_from(["group", "none"]))
def test_advantages_of_a_group_sum_to_zero_and_do_not_see_a_constant(rewards, std):
    r, groups = torch.tensor(rewards), torch.zeros(len(rewards), dtype=torch.long)
    advantage = rlvr.advantages(r, groups, std)
    # Twelve fp32 terms of size at most sqrt(12).
    assert abs(float(advantage.sum())) < 1e-5
    torch.testing.assert_close(rlvr.advantages(r + 1, groups, std), advantage, atol=1e-5, rtol=1e-5)


def reference(z, targets, std, normaliser, max_new_tokens):
    """GRPO token by token in plain Python: loss and its gradient, from the formulas."""
    groups = {int(g): [b for b in range(6) if GROUPS[b] == g] for g in GROUPS.unique()}
    deviation = lambda values: (sum((v - sum(values) / len(values)) ** 2 for v in values) / len(values)) ** 0.5
    r, n = REWARDS.tolist(), MASK.sum(1).tolist()
    total, grad = 0.0, torch.zeros_like(z, dtype=torch.float64)
    for members in groups.values():
        values = [r[b] for b in members]
        for b in members:
            scale = {"group": deviation(values) + 1e-6, "batch": deviation(r) + 1e-6, "none": 1.0}[std]
            advantage = (r[b] - sum(values) / len(values)) / scale
            for t in range(int(n[b])):
                weight = {"sequence": 1 / (6 * n[b]), "token": 1 / sum(n), "constant": 1 / (6 * max_new_tokens)}
                p = torch.softmax(z[b, t].double(), -1)
                total -= weight[normaliser] * advantage  # the ratio of a single pass is 1
                grad[b, t] = weight[normaliser] * advantage * p
                grad[b, t, targets[b, t]] -= weight[normaliser] * advantage
    return total, grad


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_one_pass_is_grpo_formula_by_formula(std, normaliser, logits):
    z = logits(6, 4, 5)
    targets = torch.randint(5, (6, 4), generator=torch.Generator().manual_seed(1))
    loss, grad = reference(z, targets, std, normaliser, 10)
    advantage, weight = rlvr.advantages(REWARDS, GROUPS, std), weights(MASK, normaliser, 10)
    found, _ = rlvr.per_token(token_logprobs(z, targets), None, advantage, None)
    assert float((found * weight).sum()) == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(gradient(z, targets, advantage, weight).double(), grad, atol=1e-6, rtol=0)


def test_without_a_behaviour_the_ratio_is_exactly_one_and_clipping_never_acts(logits):
    z, targets = logits(6, 4, 5), torch.zeros(6, 4, dtype=torch.long)
    advantage, log_s = rlvr.advantages(REWARDS, GROUPS), token_logprobs(logits(6, 4, 5), targets)
    plain, _ = rlvr.per_token(log_s, None, advantage, None)
    assert torch.equal(plain, -advantage[:, None].expand(6, 4))
    for behaviour in (None, log_s):
        loss, clipped = rlvr.per_token(log_s, behaviour, advantage, (0.2, 0.28))
        assert torch.equal(loss, plain) and not clipped.any()
    free = gradient(z, targets, advantage, MASK)
    assert torch.equal(gradient(z, targets, advantage, MASK, clip=(1e-6, 1e-6)), free)


RATIOS = [0.5, 0.79, 0.81, 1.0, 1.27, 1.29, 3.0]  # clip (0.2, 0.28): [0.8, 1.28]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("advantage", [2.0, -2.0, 0.0])
def test_clip_higher_acts_above_for_good_tokens_and_below_for_bad_ones(ratio, advantage):
    behaviour = torch.full((1, 1), -2.0)
    log_s = (behaviour + torch.tensor(ratio).log()).requires_grad_()
    loss, clipped = rlvr.per_token(log_s, behaviour, torch.tensor([advantage]), (0.2, 0.28))
    loss.sum().backward()
    acts = (advantage > 0 and ratio > 1.28) or (advantage < 0 and ratio < 0.8)
    assert bool(clipped) == acts
    bound = min(max(ratio, 0.8), 1.28)
    assert loss.item() == pytest.approx(-min(ratio * advantage, bound * advantage), abs=1e-5)
    assert float(log_s.grad) == pytest.approx(0 if acts else -ratio * advantage, abs=1e-5)


def test_an_unclipped_ratio_is_the_importance_weighted_policy_gradient(logits):
    z, targets = logits(6, 4, 5), torch.zeros(6, 4, dtype=torch.long)
    behaviour = token_logprobs(logits(6, 4, 5, seed=1), targets)
    advantage = rlvr.advantages(REWARDS, GROUPS)
    w = (token_logprobs(z, targets) - behaviour).exp()
    found = gradient(z, targets, advantage, MASK, behaviour)
    torch.testing.assert_close(found, gradient(z, targets, advantage, MASK * w), atol=1e-6, rtol=1e-5)
    _, clipped = rlvr.per_token(token_logprobs(z, targets), behaviour, advantage, None)
    assert clipped.shape == (6, 4) and not clipped.any()


def test_a_hopeless_ratio_stays_finite():
    log_s = torch.zeros(1, 1).requires_grad_()
    loss, _ = rlvr.per_token(log_s, torch.full((1, 1), -1e4), torch.tensor([-1.0]), (0.2, 0.28))
    loss.sum().backward()
    assert bool(loss.isfinite().all()) and bool(log_s.grad.isfinite().all())


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
        weight = weights(torch.ones(size, 1), "sequence", 1)
        found = gradient(z.expand(size, 1, 4), chosen[:, None], advantage, weight)
        total += p[chosen].prod() * found.sum((0, 1)).double()
    policy = p * (reward - (p * reward).sum())
    torch.testing.assert_close(total, -(1 - 1 / size) * policy, atol=1e-6, rtol=0)


def test_the_expected_gradient_on_another_policys_samples_is_the_policy_gradient():
    """Rewards as advantages, samples of q, no clip: E_q[r(y) A(y) grad log s(y)] = grad E_s[A]."""
    z, other = torch.tensor([0.3, -0.5, 1.0, 0.0]), torch.tensor([1.0, 0.5, -1.0, 0.2])
    advantage = torch.tensor([0.0, 1.0, 0.3, 0.7])
    log_q, y = torch.log_softmax(other, -1), torch.arange(4)[:, None]
    found = gradient(z.expand(4, 1, 4), y, advantage, log_q.exp()[:, None], log_q[:, None]).sum((0, 1))
    p = torch.softmax(z, -1)
    torch.testing.assert_close(found, -p * (advantage - (p * advantage).sum()), atol=1e-6, rtol=0)


def test_the_expected_gradient_over_all_sequences_of_unequal_length():
    """Two steps of a Markov policy, token 0 ends: E over all pairs of responses, constant normaliser, 1/R_max = 1/2."""
    table = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))  # row 3 is the prompt
    sequences = [(0,), *((a, b) for a in (1, 2) for b in (0, 1, 2))]
    reward = {s: float(sum(s) % 2 == 1) + 0.25 * len(s) for s in sequences}

    def probability(policy, sequence):
        logp = torch.log_softmax(policy, -1)
        steps = [logp[previous, token] for previous, token in zip((3, *sequence), sequence, strict=False)]
        return torch.stack(steps).sum().exp()

    exact = table.double().requires_grad_()
    torch.stack([probability(exact, s) * reward[s] for s in sequences]).sum().backward()
    total = torch.zeros(4, 3, dtype=torch.float64)
    for pair in product(sequences, repeat=2):
        targets = torch.tensor([[*s, 0][:2] for s in pair])
        mask = torch.tensor([[1.0, float(len(s) > 1)] for s in pair])
        rows = torch.tensor([[3, s[0]] for s in pair])
        advantage = rlvr.advantages(torch.tensor([reward[s] for s in pair]), torch.zeros(2, dtype=torch.long), "none")
        z = table.clone().requires_grad_()
        loss, _ = rlvr.per_token(token_logprobs(z[rows], targets), None, advantage, None)
        (loss * weights(mask, "constant", 2)).sum().backward()
        chance = probability(table.double(), pair[0]) * probability(table.double(), pair[1])
        total += chance * z.grad.double()
    # B R_max = 4 of 2 sequences, a baseline that contains the sample itself: 1/2 * (1 - 1/2).
    torch.testing.assert_close(total, -0.25 * exact.grad, atol=1e-6, rtol=0)


def test_masked_positions_change_nothing(logits):
    z, targets = logits(6, 4, 5), torch.zeros(6, 4, dtype=torch.long)
    advantage = rlvr.advantages(REWARDS, GROUPS)
    for normaliser in NORMALISERS:
        weight = weights(MASK, normaliser, 4)
        before = gradient(z, targets, advantage, weight)
        hidden = MASK == 0
        assert not before[hidden].any()
        noisy, moved = z.clone(), targets.clone()
        noisy[hidden], moved[hidden] = 5.0, 3
        assert torch.equal(before, gradient(noisy, moved, advantage, weight))
