"""RLVR: GRPO with verifier rewards, per token -min(r A, clip(r, 1 - low, 1 + high) A), one advantage A per sequence.

    A_b = (reward_b - mean of its group) / std,    std the group's + 1e-6, the batch's + 1e-6, or 1
    r   = s(y) / q(y), q the policy that drew the response; without q, s itself: r is exactly 1, the gradient
          -A grad log s(y), and clipping never acts

Normalisation: `objective.weights`. Standard deviations are the population's. `group` divides easy and hard prompts by
their spread and so weighs them up; `none` (Dr. GRPO) does not. A group whose rewards are all equal has no advantage
and no gradient. The group's mean contains the sample itself: over groups of G the expected gradient is 1 - 1/G of the
policy gradient. Clip-higher (DAPO) is high > low.
Not measured: which token earned the reward; any distance to a reference policy (there is no KL term).
Source: arXiv 2402.03300 (GRPO), 2503.14476 (DAPO), 2503.20783 (Dr. GRPO).
"""

from typing import Literal

import torch
from torch import Tensor

from opd_ops.objectives.importance import ratio


def advantages(rewards: Tensor, groups: Tensor, std: Literal["group", "batch", "none"] = "group") -> Tensor:
    """Group-centred advantages [B] from rewards [B] and group ids [B]."""
    centred = torch.zeros_like(rewards)
    scale = torch.ones_like(rewards)
    varied = kept(rewards, groups)
    for group in groups.unique():
        member = groups == group
        if varied[member].any():  # the mean of equal floats may be an ulp off
            centred[member] = rewards[member] - rewards[member].mean()
        if std == "group":
            scale[member] = rewards[member].std(correction=0) + 1e-6
    if std == "batch":
        scale = scale * (rewards.std(correction=0) + 1e-6)
    return centred / scale


def kept(rewards: Tensor, groups: Tensor) -> Tensor:
    """Which sequences [B] bool are in a group whose rewards differ."""
    found = torch.zeros_like(groups, dtype=torch.bool)
    for group in groups.unique():
        member = groups == group
        found[member] = (rewards[member] != rewards[member][0]).any()
    return found


def flat_groups(rewards: Tensor, groups: Tensor) -> float:
    """Fraction of groups without reward variance, which carry no signal."""
    return 1 - len(groups[kept(rewards, groups)].unique()) / len(groups.unique())


def per_token(
    log_s_y: Tensor, behaviour: Tensor | None, advantage: Tensor, clip: tuple[float, float] | None
) -> tuple[Tensor, Tensor]:
    """The surrogate loss [B, R] fp32, and where clipping took its gradient away [B, R] bool.

    log_s_y [B, R] with gradient; behaviour [B, R] log q(y), None for the current policy; advantage [B]; clip
    (low, high), None leaves the ratio as it is.
    """
    r = ratio(log_s_y, log_s_y if behaviour is None else behaviour)
    a = advantage.unsqueeze(1)
    if clip is None:
        return -r * a, torch.zeros_like(r, dtype=torch.bool)
    low, high = 1 - clip[0], 1 + clip[1]
    clipped = ((a > 0) & (r > high)) | ((a < 0) & (r < low))
    return -torch.minimum(r * a, r.clamp(low, high) * a), clipped
