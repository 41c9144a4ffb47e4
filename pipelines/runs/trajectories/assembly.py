"""A run's trainer with all that it is made from: start, teacher, task, constraint, another run's rollouts or norm.

What that was stands in run.json, as digests, before anything is trained. A run that goes on takes its bases and moments
from its own resume state, since what they were made from could be gone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from opd_ops.recipe import Recipe, Replay, opd_of
from opd_ops.tasks.guard import Guarded
from opd_ops.tasks.registry import build
from opd_ops.training.constraint import stored
from opd_ops.training.drawing import Phase
from opd_ops.training.leading import Leading
from opd_ops.training.loop import Trainer
from opd_ops.training.ranks import Ranks
from pipelines.runs.geometry import monitor
from pipelines.runs.identity import stored_as
from pipelines.runs.resources.placement import Placement
from pipelines.runs.trajectories import bases, engines, norms, starts, teaching
from pipelines.store.rollouts import Rollouts
from pipelines.store.trajectory import Trajectory


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
    placement: Placement,
    phase: Phase,
    resumed: Mapping[str, Tensor] | None,
    ranks: Ranks | None = None,
) -> Assembled:
    """Make the run's trainer, and register the run once that has succeeded.

    resumed: tensors of its resume state, if it has one. ranks: the processes that train it together.
    Errors: ValueError for what is absent, does not fit, or is not what the stored run was made from.
    """
    store, seed, constraint = trajectory.store, trajectory.seed, recipe.constraint
    registered = trajectory.run() if trajectory.is_registered() else None
    before = registered["inputs"] if registered else {}
    identity, fingerprint = stored_as(registered, recipe) if registered else (recipe.identity(), recipe.fingerprint())
    start = starts.load(store, recipe.start, seed, recipe.task)
    inputs: dict[str, Any] = {"start": start.digest}
    subspaces, until, teacher, scorer, drawing = None, None, None, None, None
    if constraint and resumed:
        subspaces, digests = stored(resumed), before.get("basis")
    else:
        subspaces, digests = bases.made(store, constraint, seed, start.weights) if constraint else (None, None)
    inputs |= {"basis": digests} if digests else {}
    if recipe.horizon.until:
        until = norms.target(store, recipe.horizon.until, seed, before.get("until"))
        inputs["until"] = until
    opd = opd_of(recipe.objective)
    if opd:
        teacher = teaching.source(store, opd, start, seed, recipe.task)
        inputs |= {"teacher": teacher.digest} if opd.teacher else {}
    rails = ()
    if recipe.reaction:
        held = before.get("rails") or monitor.resolve_guard(store, recipe.reaction.guard, recipe.name, seed)
        rails = tuple((float(norm), float(low), float(high)) for norm, low, high in held)
        inputs["rails"] = [list(rail) for rail in rails]
    task = Guarded(build(recipe.task, start.folder), recipe.resources.verifier_seconds, recipe.task.overtime)
    inputs |= {"task": facts} if (facts := task.facts()) else {}
    moments = None if resumed else starts.moments(store, recipe.start, seed)
    facts = {
        "identity": identity,
        "fingerprint": fingerprint,
        "inputs": inputs,
        "model": start.plain_config(),
        "provenance": provenance,
    }
    if registered:
        trajectory.require_matching(registered, facts)
    if teacher:
        scorer, drawing = teaching.build(store, recipe, seed, start, teacher, placement)
    trainer = (Trainer if ranks is None else partial(Leading, ranks))(
        recipe,
        seed,
        start.config,
        start.weights,
        task,
        scorer,
        engine=engines.of(recipe, start.plain_config(), placement),
        teacher_engine=drawing,
        stored=_replayed(trajectory, recipe),
        rewards=task.rewards,
        bases=subspaces,
        rails=rails,
        moments=moments,
        device="cuda" if recipe.resources.gpus else "cpu",
        phase=phase,
    )
    trajectory.register(facts)  # last, so that a recipe that is refused leaves no run behind
    return Assembled(trainer=trainer, task=task, until=until["norm"] if until else None, fingerprint=fingerprint)


def _replayed(trajectory: Trajectory, recipe: Recipe) -> Callable[[int], list[dict[str, Any]]] | None:
    """Reads the rollouts that a replay names; a replay of a replay, those beside the run that drew them."""
    source, found = recipe.rollout.source, trajectory
    if not isinstance(source, Replay):
        return None
    while isinstance(source, Replay):
        found = Trajectory(trajectory.store, source.recipe, found.seed if source.seed is None else source.seed)
        stored = found.run()["identity"]["rollout"]["source"] if found.is_registered() else {}
        source = Replay(**stored) if stored.get("kind") == "replay" else None
    return Rollouts(found.store, found.prefix).read
