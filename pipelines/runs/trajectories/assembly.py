"""A run's trainer, made from the run's inputs, and the registration of the run.

run.json records the digests of all inputs before training starts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from opd_ops.objectives.loss import Phase
from opd_ops.recipe import Recipe, Replay
from opd_ops.tasks.guard import Guarded
from opd_ops.training.inputs import RolloutSources
from opd_ops.training.loop import Trainer
from opd_ops.training.rank0 import Rank0Trainer
from opd_ops.training.ranks import Ranks
from pipelines.runs.identity import stored_as
from pipelines.runs.resources.placement import Placement
from pipelines.runs.trajectories import engines, teaching
from pipelines.runs.trajectories.inputs import Inputs, read_inputs
from pipelines.store.rollouts import Rollouts
from pipelines.store.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The processes that train a run. ranks: the data parallel ranks, of which this is rank 0; None trains alone."""

    placement: Placement
    phase: Phase
    ranks: Ranks | None = None


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """until: the norm of the update that ends the run, where its horizon names one. fingerprint: that of run.json."""

    trainer: Trainer
    task: Guarded
    until: float | None
    fingerprint: str


def assemble(
    trajectory: Trajectory,
    recipe: Recipe,
    provenance: dict[str, Any],
    runtime: Runtime,
    resumed: Mapping[str, Tensor] | None,
) -> Assembled:
    """Make the run's trainer, then register the run, so that a recipe that is refused leaves no run behind.

    resumed: tensors of its resume state, if it has one.
    Errors: ValueError for what is absent or does not fit, OtherInputs for inputs other than those of the stored run.
    """
    registered = trajectory.run() if trajectory.is_registered() else None
    identity, fingerprint = stored_as(registered, recipe) if registered else (recipe.identity(), recipe.fingerprint())
    inputs = read_inputs(trajectory, recipe, registered["inputs"] if registered else {}, resumed)
    facts = {
        "identity": identity,
        "fingerprint": fingerprint,
        "inputs": inputs.digests,
        "model": inputs.start.plain_config(),
        "provenance": provenance,
    }
    if registered:
        trajectory.require_matching(registered, facts)
    trainer = _build_trainer(trajectory, recipe, inputs, runtime)
    trajectory.register(facts)
    return Assembled(trainer=trainer, task=inputs.task, until=inputs.until, fingerprint=fingerprint)


def _build_trainer(trajectory: Trajectory, recipe: Recipe, inputs: Inputs, runtime: Runtime) -> Trainer:
    seed, start, scorer, teacher_engine = trajectory.seed, inputs.start, None, None
    if inputs.teacher:
        teacher = inputs.teacher
        scorer, teacher_engine = teaching.build(trajectory.store, recipe, seed, start, teacher, runtime.placement)
    sources = RolloutSources(
        engine=engines.build_engine(recipe, start.plain_config(), runtime.placement),
        teacher_engine=teacher_engine,
        stored=_replayed_rollouts(trajectory, recipe),
        rewards=inputs.task.rewards,
    )
    made_from = (recipe, seed, inputs.state, inputs.task, scorer, sources)
    if runtime.ranks is not None:
        return Rank0Trainer(runtime.ranks, *made_from, phase=runtime.phase)
    return Trainer(*made_from, device="cuda" if recipe.resources.gpus else "cpu", phase=runtime.phase)


def _replayed_rollouts(trajectory: Trajectory, recipe: Recipe) -> Callable[[int], list[dict[str, Any]]] | None:
    """Reads the rollouts that a replay names; for a replay of a replay, those of the run that drew them."""
    source, drawn_by = recipe.rollout.source, trajectory
    if not isinstance(source, Replay):
        return None
    while isinstance(source, Replay):
        seed = drawn_by.seed if source.seed is None else source.seed
        drawn_by = Trajectory(trajectory.store, source.recipe, seed)
        stored = drawn_by.run()["identity"]["rollout"]["source"] if drawn_by.is_registered() else {}
        source = Replay(**stored) if stored.get("kind") == "replay" else None
    return Rollouts(drawn_by.store, drawn_by.prefix).read
