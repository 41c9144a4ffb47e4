"""Reinforcement learning from verifiable rewards, as a recipe declares it. The loss: `opd_ops.objectives.rlvr`."""

from dataclasses import dataclass
from typing import Literal

from opd_ops.recipe.objective import Normaliser, Objective, require_known, require_temperature, temperature_refusals
from opd_ops.recipe.rollout import Rollout

Spread = Literal["group", "batch", "none"]


@dataclass(frozen=True, kw_only=True)
class Rlvr(Objective):
    """GRPO with verifier rewards and no KL term; one update per batch of rollouts.

    clip: (low, high) of the importance ratio against the rollout's policy, (0.2, 0.28) in the paper. Where the rollouts
    are the current policy's the ratio is 1 and clipping never acts.
    """

    normaliser: Normaliser = "sequence"
    std: Spread = "group"
    clip: tuple[float, float] | None = None
    loss_temperature: float = 1.0
    drop_flat: bool = False  # leave groups without reward variance out of the batch, and of its denominators
    flat_limit: int = 25  # consecutive steps with nothing but such groups before the run is stopped
    kind: str = "rlvr"

    title = "verifiable rewards"
    cost = 1.7  # with the rollouts
    needs_rewards = True

    def __post_init__(self) -> None:
        require_known("normaliser", self.normaliser, Normaliser)
        require_known("std", self.std, Spread)
        require_temperature(self.loss_temperature)
        if self.clip is not None and not (0 < self.clip[0] < 1 and self.clip[1] > 0):
            raise ValueError(f"clip is (low, high) with low in (0, 1) and high above 0, got {self.clip}")

    @property
    def zero_variance_limit(self) -> int:
        return self.flat_limit

    def refusals(self, rollout: Rollout) -> list[str]:
        return super().refusals(rollout) + self.sample_refusals(rollout)

    def sample_refusals(self, rollout: Rollout) -> list[str]:
        """Why a policy gradient does not fit the rollouts."""
        reasons = temperature_refusals("a policy gradient", self.loss_temperature, rollout)
        if rollout.samples < 2:
            reasons.append("a group of one sample has no advantage: draw rollout.samples >= 2")
        if not rollout.on_policy and not rollout.correction and not self.clip:
            reasons.append(
                f"the rollouts are the {rollout.drawn_by}'s: a policy gradient needs a correction, or rlvr.clip"
            )
        if not rollout.on_policy and rollout.correction and self.clip:
            reasons.append("rlvr.clip corrects for the rollout policy already: leave one of the two out")
        return reasons
