"""Train one run: a trainer actor on Ray, or the same object in this process, which gives the same bytes."""

import gc
import time
from collections.abc import Callable
from typing import Any

from opd_ops.recipe import FinalOf, NormOf, Recipe, Replay, SnapshotOf, UpdateOf, WeightsOf
from pipelines.runs.cluster.attach import BEAT, actor, end_idle_actors
from pipelines.runs.cluster.worker_failures import (
    RETRIES,
    WorkerFailed,
    describe_failure,
    is_out_of_memory,
    warn,
    worker_failure_types,
)
from pipelines.runs.identity import require_same_contents, stored_as
from pipelines.runs.provenance import provenance
from pipelines.runs.resources.memory import memory
from pipelines.runs.resources.placement import Placement, enlarge_memory, reserve
from pipelines.runs.trajectories.group import ConnectionLost, RankActor, start_ranks
from pipelines.runs.trajectories.run import CHUNK, Progress, TrainingRun
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.catalog import study_arg, suggest_command

PAUSE = 5.0  # seconds after a trainer was killed for memory, twice as long each time


class Host(RankActor):
    """The Ray actor of a run: at most one at a time. With several workers it is rank 0."""

    def __init__(self) -> None:
        import opd_ops.training.loop  # noqa: F401  # five seconds, which an actor made ahead of its run spends early

        self.run: TrainingRun | None = None

    def begin(self, store: Store, recipe: Recipe, seed: int, provenance: dict[str, Any], placement: Placement) -> None:
        self.run = TrainingRun(store, recipe, seed, provenance, placement, self.ranks)

    def work(self, steps: int) -> Progress:
        assert self.run is not None
        state = self.run.work(steps, settled=False)
        if state.finished:
            # An actor that waits for its next run holds no model; a run is in cycles, which are seldom looked for.
            self.run = None
            gc.collect()
        return state


def complete(store: Store, recipe: Recipe, seed: int) -> bool:
    """True when the run is in the store, whole, and of this very recipe.

    A stored run of another recipe without a snapshot past step 0 gives way to this one, so it is none. One whose
    weights and data lay elsewhere is of this recipe, if those that are here have the same contents.
    Errors: ValueError naming the fields in which any other stored run differs, OtherInputs for other contents.
    """
    trajectory = Trajectory(store, recipe.name, seed)
    if not trajectory.is_registered():
        return False
    stored = trajectory.run()
    identity, fingerprint = stored_as(stored, recipe)
    if stored["fingerprint"] != fingerprint and not trajectory.has_progress():
        return False
    trajectory.require_same(stored, identity, fingerprint)
    if fingerprint != recipe.fingerprint():
        require_same_contents(store, recipe, seed)
    return trajectory.end() is not None


def train(
    store: Store,
    recipe: Recipe,
    seed: int,
    *,
    serial: bool = False,
    progress: Callable[[Progress], None] = lambda p: None,
) -> dict[str, Any]:
    """Train the run to its end (or find it complete) and return end.json.

    On Ray the run is an actor with its recipe's GPUs, rollout actors and teacher actors, and their memory is reserved;
    `serial` does everything in this process. Both give the same bytes. Data parallel workers (`Resources.workers`) are
    one actor each, on Ray only; their number decides the order of fp32 sums, so only the same number repeats the bytes.
    `progress` is called at least every second on Ray, and may stop the run by raising: the next call goes on from the
    store. When an actor dies, another goes on, with more memory reserved where it died for memory.

    Errors: ValueError for a changed recipe, a failed gate, a placement that cannot be met, or workers without Ray;
    StepFailed for a step that could not be made, a diverged loss among them; WorkerFailed where one actor after the
    other dies.
    """
    trajectory = Trajectory(store, recipe.name, seed)
    if not complete(store, recipe, seed):
        state = Progress(0, recipe.horizon.steps, False, 0.0)
        if serial:
            run = TrainingRun(store, recipe, seed, _facts(recipe))
            while not state.finished:
                state = run.work(settled=False)
                progress(state)
        else:
            _on_ray(store, recipe, seed, state, progress)
    end = trajectory.end()
    assert end is not None
    return end


def _on_ray(store: Store, recipe: Recipe, seed: int, state: Progress, progress: Callable[[Progress], None]) -> None:
    """Train on an actor, and restart it from the store where it dies.

    Errors: WorkerFailed after RETRIES restarts without a step.
    """
    deaths, short, furthest = 0, 0, -1
    needs = memory(store, recipe, seed)

    def beat() -> None:
        progress(state)

    while not state.finished:
        try:
            with (
                reserve(recipe.resources, enlarge_memory(recipe.resources, needs, 2**short), beat=beat) as placement,
                actor(Host, placement.trainer.options()) as host,
                start_ranks(host, recipe, f"{recipe.name} seed {seed}", placement, beat) as group,
            ):
                group.wait_for(host.begin.remote(store, recipe, seed, _facts(recipe), placement), beat)
                while not state.finished:
                    state = group.wait_for(host.work.remote(CHUNK), beat)
                    beat()
        except (*worker_failure_types(), ConnectionLost) as death:
            deaths = deaths + 1 if state.step <= furthest else 1
            furthest = max(furthest, state.step)
            line = f"{recipe.name} seed {seed}: its trainer"
            if deaths > RETRIES:
                raise WorkerFailed(
                    f"{line} died {deaths} times near step {state.step} ({describe_failure(death)}); give it more "
                    "memory and start it again: it goes on; with a smaller batch it begins anew: "
                    f"opd study run {study_arg(recipe.study)} --replace {recipe.arm}"
                ) from None
            if is_out_of_memory(death):
                short = min(short + 1, RETRIES)
                warn(
                    f"{line} was lost near step {state.step} ({describe_failure(death)}); another goes on from the "
                    f"store with {2**short} times the memory reserved, or all there is"
                )
                end_idle_actors()
                _pause(PAUSE * 2 ** (deaths - 1), beat)


def _facts(recipe: Recipe) -> dict[str, Any]:
    """Provenance, with the number of workers, on which the last digits depend."""
    return provenance() | {"workers": recipe.resources.workers}


def _pause(seconds: float, beat: Callable[[], None]) -> None:
    """Give whatever took the memory time to end."""
    until = time.monotonic() + seconds
    while (remaining := until - time.monotonic()) > 0:
        beat()
        time.sleep(min(BEAT, remaining))


def parents(recipe: Recipe, seed: int) -> list[tuple[str, int]]:
    """The runs, as (recipe, seed), that must be complete before this one."""
    constraint = recipe.constraint
    needed: list[Any] = [
        recipe.start,
        recipe.rollout.source,
        recipe.objective.teacher,
        constraint.basis if constraint else None,
        recipe.horizon.until,
    ]
    runs = [
        (source.recipe, seed if source.seed is None else source.seed)
        for source in needed
        if isinstance(source, FinalOf | SnapshotOf | Replay | UpdateOf | WeightsOf | NormOf)
    ]
    runs += references(recipe, seed)
    return [run for run in dict.fromkeys(runs) if run != (recipe.name, seed)]


def references(recipe: Recipe, seed: int) -> list[tuple[str, int]]:
    """Those of its parents that must be measured, too: what a guard's band is made of."""
    guard = recipe.reaction and recipe.reaction.guard
    if guard is None or (name := guard.reference) is None:
        return []
    return [(name, number) for number in guard.seeds if (name, number) != (recipe.name, seed)]


def require_parents(store: Store, recipe: Recipe, seed: int) -> None:
    """Errors: ValueError naming a run that must be trained first."""
    for name, number in parents(recipe, seed):
        if Trajectory(store, name, number).end() is None:
            raise ValueError(
                f"{recipe.name} seed {seed} needs {name} seed {number}, which is not complete: "
                f"{suggest_command(name, number)}"
            )
