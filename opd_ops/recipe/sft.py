"""SFT, as a recipe declares it. The loss: `opd_ops.objectives.sft`."""

from dataclasses import dataclass

from opd_ops.recipe.objective import Objective
from opd_ops.recipe.rollout import Rollout


@dataclass(frozen=True, kw_only=True)
class Sft(Objective):
    """Next-token cross-entropy on one of the task's demonstration streams."""

    stream: str
    kind: str = "sft"

    title = "supervised fine-tuning"

    @property
    def demonstrations(self) -> str:
        return self.stream

    def refusals(self, rollout: Rollout) -> list[str]:
        if rollout.on_policy and not rollout.correction:
            return []
        return ["sft trains on demonstrations: it has no rollout source and no correction"]
