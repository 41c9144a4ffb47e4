"""What an objective takes: a declaration, a loss and a line in `LOSSES`. This one trains through a whole run."""

from dataclasses import dataclass, replace

import pytest
import torch

from assets.plan import cost
from opd_ops.objectives.loss import Loss
from opd_ops.objectives.losses import LOSSES
from opd_ops.objectives.objective import token_logprobs, weights
from opd_ops.recipe import Horizon, Objective, Recipe
from pipelines import lake
from pipelines.runs.resources.memory import memory
from pipelines.runs.trajectories.training import parents, train
from pipelines.store.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Filtered(Objective):
    """Imitates the student's own responses, right ones twice."""

    kind: str = "filtered"

    title = "rejection fine-tuning"
    cost = 1.6


class FilteredLoss(Loss):
    """Per token -(1 + reward) log s(y), over all response tokens of the step."""

    name = "filtered"

    def loss(self, logits, begin, end):
        part, share = self.batch.rows(begin, end), weights(self.batch.mask, "token", 0)[begin:end]
        self.positions.add(part.mask)
        return -((1 + part.rewards.unsqueeze(1)) * token_logprobs(logits, part.targets) * share).sum()


def test_a_new_objective_is_a_declaration_a_loss_and_a_name(arm, seeded, monkeypatch):
    recipe: Recipe = replace(
        arm("rlvr"), arm="filtered", objective=Filtered(), horizon=Horizon(steps=2, snapshots=(1, 2))
    )
    assert recipe.identity()["objective"] == {"kind": "filtered"}
    assert recipe.fingerprint() != arm("rlvr").fingerprint()
    store = seeded("pre")
    assert parents(recipe, 0) == [("mini.pre", 0)]
    assert cost(recipe) == 1.6 * 2 * recipe.rollout.prompts * recipe.rollout.samples
    assert memory(store, recipe, 0).trainer > 0
    with pytest.raises(ValueError, match=r"the objective 'filtered' has no loss: name one in .*LOSSES"):
        train(store, recipe, 0, serial=True)
    monkeypatch.setitem(LOSSES, "filtered", FilteredLoss)
    assert train(store, recipe, 0, serial=True)["step"] == 2
    trajectory = Trajectory(store, recipe.name, 0)
    before, after = ({name: ref.read() for name, ref in trajectory.refs(step).items()} for step in (0, 2))
    assert any(not torch.equal(w, before[name]) for name, w in after.items())
    rows = lake.scan("training", store.uri).collect().rows(named=True)
    losses = [row["loss"] for row in rows if row["recipe"] == recipe.name]
    assert len(losses) == 2 and all(loss > 0 for loss in losses)


def test_what_a_new_objective_needs_of_its_rollouts_is_asked_of_it(arm):
    class Picky(Filtered):
        def refusals(self, rollout):
            return [*super().refusals(rollout), "it needs another rollout"]

    with pytest.raises(ValueError, match=r"mini\.rlvr is refused: it needs another rollout"):
        replace(arm("rlvr"), objective=Picky())
