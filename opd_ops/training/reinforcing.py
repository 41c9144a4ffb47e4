"""The RLVR term of a step: advantages over the whole batch, then the clipped surrogate."""

from dataclasses import replace

import torch
from torch import Tensor

from opd_ops.batch import Batch
from opd_ops.objectives import importance, mix, rlvr
from opd_ops.objectives.objective import weights
from opd_ops.recipe import Recipe, Rlvr, rlvr_of
from opd_ops.training.mismatch import Mismatch
from opd_ops.training.positions import Positions


def left(spec: Rlvr, batch: Batch) -> tuple[Batch, float]:
    """The batch without the groups that `drop_flat` leaves out, and the share of flat groups before."""
    assert batch.rewards is not None and batch.groups is not None
    flat = rlvr.flat_groups(batch.rewards, batch.groups)
    if spec.drop_flat:
        kept = rlvr.kept(batch.rewards, batch.groups).to(batch.mask.dtype)
        batch = replace(batch, mask=batch.mask * kept.unsqueeze(1))
    return batch, flat


class Reinforcing:
    """GRPO bound to a step's batch. `positions` is None where another term measures."""

    name = "rlvr"

    def __init__(self, recipe: Recipe, batch: Batch, positions: Positions | None, mismatch: Mismatch) -> None:
        spec = rlvr_of(recipe.objective)
        assert spec is not None and batch.rewards is not None and batch.groups is not None
        self.spec, self.batch, self.positions, self.mismatch = spec, batch, positions, mismatch
        self.correction, self.on_policy = recipe.rollout.correction, recipe.rollout.on_policy
        self.advantage = rlvr.advantages(batch.rewards, batch.groups, spec.std)
        self.weight = weights(batch.mask, spec.normaliser, recipe.rollout.max_new_tokens)
        self.clipped = 0.0
        self.ratios: list[tuple[Tensor, Tensor]] = []

    def loss(self, logits: Tensor, begin: int, end: int) -> Tensor:
        part = self.batch.rows(begin, end)
        log_s = torch.log_softmax(logits.float() / self.spec.loss_temperature, -1)
        chosen = log_s.gather(-1, part.targets.unsqueeze(-1)).squeeze(-1)
        if self.positions is not None:
            with torch.no_grad():
                self.positions.add(part.mask, entropy=-(log_s.exp() * log_s).sum(-1))
        if self.on_policy and self.positions is not None:
            self.mismatch.add(chosen.detach(), part.behaviour, part.mask)
        factor, behaviour = self.weight[begin:end], None
        if self.correction:
            assert part.behaviour is not None
            ratio = importance.weights(chosen, part.behaviour, self.correction.cap)
            self.ratios.append((ratio, part.mask))
            factor = factor * ratio
        elif not self.on_policy:
            behaviour = part.behaviour
        surrogate, clipped = rlvr.per_token(chosen, behaviour, self.advantage[begin:end], self.spec.clip)
        self.clipped += float((clipped * part.mask).sum())
        return (surrogate * factor).sum()

    def rms(self) -> float:
        """Root mean square of the per-token advantages over the step, which `rms` mixing divides by."""
        return mix.rms(self.advantage.unsqueeze(1).expand_as(self.batch.mask), self.batch.mask)

    def summary(self) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        if self.ratios:
            ratio, mask = (torch.cat([pair[i] for pair in self.ratios]) for i in range(2))
            assert self.correction is not None
            found = {
                "ess": importance.effective(ratio, mask),
                "clipped": importance.cut(ratio, mask, self.correction.cap),
            }
        elif self.spec.clip:
            found["clipped"] = self.clipped / max(1.0, float(self.batch.mask.sum()))
        return found

    def measured(self) -> tuple[float, list[tuple[Tensor, Tensor]]]:
        return self.clipped, [(ratio.cpu(), mask.cpu()) for ratio, mask in self.ratios]

    def merge(self, found: tuple[float, list[tuple[Tensor, Tensor]]]) -> None:
        clipped, ratios = found
        self.clipped += clipped
        self.ratios += [(ratio.to(self.weight.device), mask.to(self.weight.device)) for ratio, mask in ratios]
