"""RLVR: GRPO, L = -sum_b A_b sum_t w_b mask[b,t] log p_s(y[b,t]), with verifier rewards and one update per batch.

A_b = (r_b - mean of its group) / std, where std is the group's (+1e-6), the batch's, or 1. The weight w is
1 / (B n_b) for `sequence` (the mean over sequences of per-token means), 1 / N for `token`, 1 / (B R_max) for
`constant`. One update per batch makes the importance ratio exactly 1, so PPO clipping never acts and is left out.
A group whose rewards are all equal has zero advantage and no gradient.
"""

from typing import Literal

import torch
from torch import Tensor

from opd_ops.objectives.objective import token_logprobs


def advantages(rewards: Tensor, groups: Tensor, std: Literal["group", "batch", "none"] = "group") -> Tensor:
    """Group-centred advantages [B] from rewards [B] and group ids [B]; population standard deviations."""
    centred = torch.zeros_like(rewards)
    scale = torch.ones_like(rewards)
    for group in groups.unique():
        member = groups == group
        if not (rewards[member] == rewards[member][0]).all():  # the mean of equal floats may be an ulp off
            centred[member] = rewards[member] - rewards[member].mean()
        if std == "group":
            scale[member] = rewards[member].std(correction=0) + 1e-6
    if std == "batch":
        scale = scale * (rewards.std(correction=0) + 1e-6)
    return centred / scale


def flat_groups(rewards: Tensor, groups: Tensor) -> float:
    """Fraction of groups without reward variance, which carry no signal."""
    ids = groups.unique()
    return sum(bool((rewards[groups == g] == rewards[groups == g][0]).all()) for g in ids) / len(ids)


def weights(mask: Tensor, normaliser: Literal["sequence", "token", "constant"], max_new_tokens: int) -> Tensor:
    """Per-token weight [B, R] over the whole step; the mask is part of it."""
    if normaliser == "token":
        return mask / mask.sum()
    if normaliser == "constant":
        return mask / (mask.shape[0] * max_new_tokens)
    return mask / (mask.shape[0] * mask.sum(1, keepdim=True).clamp(min=1))


def loss(logits: Tensor, targets: Tensor, advantage: Tensor, weight: Tensor) -> Tensor:
    """Share of the step's policy-gradient loss; logits [B, R, V], advantage [B], weight [B, R] of the whole step."""
    return -(token_logprobs(logits, targets) * weight * advantage.unsqueeze(1)).sum()
