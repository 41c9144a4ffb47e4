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

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from opd_ops.batch import Batch
from opd_ops.objectives import importance
from opd_ops.objectives.importance import ratio
from opd_ops.objectives.loss import Loss, StepInputs, root_mean_square
from opd_ops.objectives.mismatch import Mismatch
from opd_ops.objectives.objective import entropy, log_softmax, select, weights
from opd_ops.objectives.positions import Positions
from opd_ops.recipe.rlvr import Rlvr


def advantages(rewards: Tensor, groups: Tensor, std: Literal["group", "batch", "none"] = "group") -> Tensor:
    """Group-centred advantages [B] from rewards [B] and group ids [B]."""
    centred = torch.zeros_like(rewards)
    scale = torch.ones_like(rewards)
    varied = has_variance(rewards, groups)
    for group in groups.unique():
        member = groups == group
        if varied[member].any():  # the mean of equal floats may be an ulp off
            centred[member] = rewards[member] - rewards[member].mean()
        if std == "group":
            scale[member] = rewards[member].std(correction=0) + 1e-6
    if std == "batch":
        scale = scale * (rewards.std(correction=0) + 1e-6)
    return centred / scale


def has_variance(rewards: Tensor, groups: Tensor) -> Tensor:
    """Which sequences [B] bool are in a group whose rewards differ."""
    varied = torch.zeros_like(groups, dtype=torch.bool)
    for group in groups.unique():
        member = groups == group
        varied[member] = (rewards[member] != rewards[member][0]).any()
    return varied


def zero_variance_groups(rewards: Tensor, groups: Tensor) -> float:
    """Fraction of groups without reward variance, which carry no signal."""
    return 1 - len(groups[has_variance(rewards, groups)].unique()) / len(groups.unique())


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


class PolicyGradientLoss(Loss):
    """RLVR on a step's rollouts. Advantages are those of the whole step's groups."""

    name = "rlvr"

    @staticmethod
    def select_rows(spec: Rlvr, batch: Batch) -> Batch:
        if not spec.drop_flat:
            return batch
        rewards, groups = _require_rewards(batch)
        varied = has_variance(rewards, groups).to(batch.mask.dtype)
        return replace(batch, mask=batch.mask * varied.unsqueeze(1))

    def __init__(self, spec: Rlvr, step: StepInputs, positions: Positions | None, mismatch: Mismatch | None) -> None:
        super().__init__(spec, step, positions, mismatch)
        rollout, (rewards, groups) = step.recipe.rollout, _require_rewards(self.batch)
        self.correction, self.on_policy = rollout.correction, rollout.on_policy
        self.zero_variance = zero_variance_groups(rewards, groups)
        self.advantage = advantages(rewards, groups, spec.std)
        self.weight = weights(self.batch.mask, spec.normaliser, rollout.max_new_tokens)
        self.clipped = 0.0  # tokens
        self.importance = importance.StepWeights(self.correction.cap if self.correction else None)

    def loss(self, logits: Tensor, begin: int, end: int) -> Tensor:
        part = self.batch.rows(begin, end)
        log_s = log_softmax(logits, self.spec.loss_temperature)
        logprobs = select(log_s, part.targets)
        if self.positions is not None:
            self.positions.add(part.mask, entropy=entropy(log_s))
        if self.on_policy and self.mismatch is not None:
            self.mismatch.add(logprobs.detach(), part.behaviour, part.mask)
        factor, behaviour = self.weight[begin:end], None
        if self.correction:
            factor = factor * self.importance.add(logprobs, part)
        elif not self.on_policy:
            behaviour = part.behaviour
        surrogate, clipped = per_token(logprobs, behaviour, self.advantage[begin:end], self.spec.clip)
        self.clipped += float((clipped * part.mask).sum())
        return (surrogate * factor).sum()

    def rms(self) -> float:
        """Root mean square of the advantages A_b over the step's tokens."""
        return root_mean_square(self.advantage.unsqueeze(1).expand_as(self.batch.mask), self.batch.mask)

    def summary(self) -> dict[str, float | None]:
        columns: dict[str, float | None] = {"flat_groups": self.zero_variance} | self.importance.summary()
        if self.spec.clip and not self.importance.parts:
            columns["clipped"] = self.clipped / max(1.0, float(self.batch.mask.sum()))
        return columns

    def measurements(self) -> Any:
        return self.clipped, self.importance.measurements()

    def merge(self, measurements: Any) -> None:
        clipped, ratios = measurements
        self.clipped += clipped
        self.importance.merge(ratios, self.weight.device)


def _require_rewards(batch: Batch) -> tuple[Tensor, Tensor]:
    assert batch.rewards is not None and batch.groups is not None
    return batch.rewards, batch.groups
