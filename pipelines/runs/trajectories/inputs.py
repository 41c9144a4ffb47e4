"""All that a run is made from besides its recipe, read from the store, with the digests that run.json records of it.

A run that goes on takes its bases and moments from its own resume state, since their source may be gone by then.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from opd_ops.recipe import Recipe
from opd_ops.recipe.reaction import Rail
from opd_ops.tasks.guard import Guarded
from opd_ops.tasks.registry import build
from opd_ops.training.constraint import stored_bases
from opd_ops.training.inputs import InitialState
from opd_ops.training.subspace import Bases
from pipelines.runs.geometry import monitor
from pipelines.runs.trajectories import bases, norms, starts, teaching
from pipelines.runs.trajectories.starts import Model
from pipelines.store.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """start, teacher: models with their weights. until: the norm of the update that ends the run, and its digests.

    digests: of all of it, by the names in run.json's `inputs`.
    """

    start: Model
    state: InitialState
    teacher: Model | None
    task: Guarded
    until: float | None
    digests: dict[str, Any]


def read_inputs(
    trajectory: Trajectory, recipe: Recipe, recorded: Mapping[str, Any], resumed: Mapping[str, Tensor] | None
) -> Inputs:
    """recorded: the `inputs` of the run's run.json, if there is one. resumed: tensors of its resume state, if any.

    Errors: ValueError for what is absent or does not fit.
    """
    store, seed = trajectory.store, trajectory.seed
    start = starts.load(store, recipe.start, seed, recipe.task)
    digests: dict[str, Any] = {"start": start.digest}
    subspaces, until, teacher = _read_bases(trajectory, recipe, start, recorded, resumed, digests), None, None
    if recipe.horizon.until:
        digests["until"] = until = norms.read_target(store, recipe.horizon.until, seed, recorded.get("until"))
    if recipe.objective.needs_teacher:
        teacher = teaching.source(store, recipe.objective, start, seed, recipe.task)
        digests |= {"teacher": teacher.digest} if recipe.objective.teacher else {}
    rails = _read_rails(trajectory, recipe, recorded, digests)
    task = Guarded(build(recipe.task, start.folder), recipe.resources.verifier_seconds, recipe.task.overtime)
    digests |= {"task": facts} if (facts := task.facts()) else {}
    moments = None if resumed else starts.moments(store, recipe.start, seed)
    state = InitialState(start.config, start.weights, moments, subspaces, rails)
    norm = until["norm"] if until else None
    return Inputs(start=start, state=state, teacher=teacher, task=task, until=norm, digests=digests)


def _read_bases(
    trajectory: Trajectory,
    recipe: Recipe,
    start: Model,
    recorded: Mapping[str, Any],
    resumed: Mapping[str, Tensor] | None,
    digests: dict[str, Any],
) -> Bases | None:
    """The subspaces of the recipe's constraint; adds their digest."""
    if recipe.constraint is None:
        return None
    if resumed:
        subspaces, basis = stored_bases(resumed), recorded.get("basis")
    else:
        subspaces, basis = bases.make_bases(trajectory.store, recipe.constraint, trajectory.seed, start.weights)
    digests |= {"basis": basis} if basis else {}
    return subspaces


def _read_rails(
    trajectory: Trajectory, recipe: Recipe, recorded: Mapping[str, Any], digests: dict[str, Any]
) -> tuple[Rail, ...]:
    """The band of the reaction's guard, as it was when the run began; adds it to the digests."""
    if recipe.reaction is None:
        return ()
    guard, store, seed = recipe.reaction.guard, trajectory.store, trajectory.seed
    points = recorded.get("rails") or monitor.resolve_guard(store, guard, recipe.name, seed)
    rails = tuple((float(norm), float(low), float(high)) for norm, low, high in points)
    digests["rails"] = [list(rail) for rail in rails]
    return rails
