"""Train one run: a trainer actor on Ray, or the same object in this process, which gives the same bytes.

The run lives in the store: snapshots, resume state, and, at its end, its tables and end.json. Stopped at any moment
and started again, it goes on from the newest resume state and ends with the same snapshots.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opd_ops.recipe import FinalOf, Opd, Recipe
from pipelines import lake
from pipelines.runs.clock import Clock
from pipelines.runs.cluster import actor, attend
from pipelines.runs.provenance import provenance
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

CHUNK = 5  # optimizer steps between two progress reports


class LearningFailed(ValueError):
    """A gate never opened, or was passed."""


@dataclass(frozen=True)
class Progress:
    """How far a run is. `steps` is the limit where a gate may end it sooner."""

    step: int
    steps: int
    finished: bool
    seconds: float  # wall seconds of work in this process so far


class TrainingRun:
    """One run, advanced in chunks. Holds the trainer; everything that must last is in the store."""

    def __init__(self, store: Store, recipe: Recipe, seed: int, provenance: dict[str, Any]) -> None:
        import torch

        from opd_ops.tasks.registry import build
        from opd_ops.training.loop import Trainer
        from pipelines.runs import starts

        torch.set_num_threads(recipe.resources.threads)
        self.clock = Clock()
        self.before = 0.0  # wall seconds of earlier processes
        self.recipe, self.seed = recipe, seed
        self.trajectory = Trajectory(store, recipe.name, seed)
        with self.clock.phase("start"):
            start = starts.load(store, recipe.start, seed)
            teacher = None
            inputs = {"start": start.digest}
            if isinstance(recipe.objective, Opd) and recipe.objective.teacher is not None:
                source = starts.load(store, recipe.objective.teacher, seed)
                teacher = (source.config, source.weights)
                inputs["teacher"] = source.digest
            self.trajectory.register(
                {
                    "identity": recipe.identity(),
                    "fingerprint": recipe.fingerprint(),
                    "inputs": inputs,
                    "model": start.plain_config(),
                    "provenance": provenance,
                }
            )
            task = build(recipe.task, start.folder)
            self.trainer = Trainer(recipe, seed, start.config, start.weights, task, teacher)
        self.rows: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.snapshots = set(recipe.horizon.snapshot_steps())
        self.parent: int | None = None
        self._begin()

    def work(self, steps: int = CHUNK) -> Progress:
        """Advance by at most `steps` optimizer steps."""
        horizon = self.recipe.horizon
        for _ in range(steps):
            if self._ended():
                break
            with self.clock.phase("train"):
                self.rows.append(self.trainer.advance())
            step = self.trainer.step
            if step in self.snapshots:
                self._snapshot(step)
            opened = self._gate(step)
            if opened or step == horizon.steps:
                self._finish(step)
                return self._progress(True)
            if step % horizon.resume_every == 0:
                self._save(step)
        return self._progress(self._ended())

    def _progress(self, finished: bool) -> Progress:
        seconds = self.clock.wall - self.before
        return Progress(self.trainer.step, self.recipe.horizon.steps, finished, seconds)

    def _begin(self) -> None:
        resumed = self.trajectory.load_resume()
        if resumed is None:
            self._snapshot(0)
            with self.clock.phase("evaluate"):
                self.evaluations += self.trainer.evaluate()
            return
        step, tensors, facts = resumed
        self.trainer.restore(tensors, step)
        self.rows, self.evaluations = facts["training"], facts["evaluation"]
        self.parent = facts["parent"]
        started = self.clock.seconds["start"]
        self.clock = Clock(facts["timing"])
        self.before = self.clock.wall
        for i, seconds in enumerate(started):
            self.clock.seconds["start"][i] += seconds

    def _ended(self) -> bool:
        return self.trajectory.end() is not None

    def _snapshot(self, step: int) -> None:
        with self.clock.phase("snapshot"):
            self.trajectory.commit(step, self.trainer.weights(), self.parent)
        self.parent = step

    def _gate(self, step: int) -> bool:
        """True when the gate opens at this step. Errors: LearningFailed past its band or at the step limit."""
        gate = self.recipe.horizon.gate
        limit = step == self.recipe.horizon.steps
        if gate is None or (step % gate.every and not limit):
            return False
        with self.clock.phase("evaluate"):
            row = self.trainer.evaluate(gate.temperature)[0]
        self.evaluations.append(row)
        accuracy = row["accuracy"]
        where = f"{self.recipe.name} seed {self.seed}: accuracy {accuracy:.3f} at T={gate.temperature:g} at step {step}"
        if accuracy > gate.high:
            raise LearningFailed(f"{where} is past the gate [{gate.low}, {gate.high}]; lower the learning rate")
        if accuracy < gate.low and limit:
            raise LearningFailed(f"{where}, the limit, is below the gate [{gate.low}, {gate.high}]; raise the limit")
        return accuracy >= gate.low

    def _save(self, step: int) -> None:
        with self.clock.phase("snapshot"):
            self.trajectory.save_resume(
                step,
                self.trainer.optimizer.state(),
                {
                    "training": self.rows,
                    "evaluation": self.evaluations,
                    "parent": self.parent,
                    "timing": self.clock.seconds,
                },
            )

    def _finish(self, step: int) -> None:
        """Last snapshot and evaluation, then the tables, then end.json, which makes the run complete."""
        if self.parent != step:
            self._snapshot(step)
        with self.clock.phase("evaluate"):
            final = self.trainer.evaluate()
        # The gate's one-sample reading of this step gives way to the full evaluation.
        self.evaluations = [row for row in self.evaluations if row["step"] != step] + final
        recipe, store = self.recipe, self.trajectory.store
        keys = {"study": recipe.study, "recipe": recipe.name, "seed": self.seed}
        where = {"recipe": recipe.name, "seed": self.seed}
        lake.write(store, "training", [keys | row for row in self.rows], **where)
        lake.write(store, "evaluation", [keys | row for row in self.evaluations], **where)
        write_timing(store, recipe.study, recipe.name, self.seed, step, self.clock)
        self.trajectory.finish(
            {
                "step": step,
                "digest": self.trajectory.digest(step),
                "snapshots": self.trajectory.steps(),
                "evaluation": final,
            }
        )


class Host:
    """The Ray actor of a run: at most one at a time."""

    def __init__(self) -> None:
        import opd_ops.training.loop  # noqa: F401  # five seconds, which an actor made ahead of its run spends early

        self.run: TrainingRun | None = None

    def begin(self, store: Store, recipe: Recipe, seed: int, provenance: dict[str, Any]) -> None:
        self.run = TrainingRun(store, recipe, seed, provenance)

    def work(self, steps: int) -> Progress:
        assert self.run is not None
        state = self.run.work(steps)
        if state.finished:
            self.run = None  # an actor that waits for its next run holds no model
        return state


def write_timing(store: Store, study: str, recipe: str, seed: int, step: int, clock: Clock) -> None:
    """Upsert the phases of `clock` into the timing table of a run."""
    stored = lake.written(store, "timing", recipe=recipe, seed=seed)
    old = [] if stored is None else [row for row in stored.to_dicts() if row["phase"] not in clock.seconds]
    keys = {"study": study, "recipe": recipe, "seed": seed, "step": step}
    new = [keys | {"phase": phase, "wall_s": wall, "cpu_s": cpu} for phase, (wall, cpu) in clock.seconds.items()]
    lake.write(store, "timing", old + new, recipe=recipe, seed=seed)


def complete(store: Store, recipe: Recipe, seed: int) -> bool:
    """True when the run is in the store, whole, and of this very recipe.

    Errors: ValueError naming the fields in which a stored run differs.
    """
    trajectory = Trajectory(store, recipe.name, seed)
    if not trajectory.registered():
        return False
    trajectory.require_same(trajectory.run(), recipe.identity(), recipe.fingerprint())
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

    On Ray the run is an actor with the GPUs its recipe asks for; `serial` keeps it in this process. Both give the
    same bytes. `progress` is called at least every second on Ray, and may stop the run by raising: the next call goes
    on from the store. Errors: ValueError for a changed recipe or a failed gate, FloatingPointError for a diverged loss.
    """
    trajectory = Trajectory(store, recipe.name, seed)
    if not complete(store, recipe, seed):
        state = Progress(0, recipe.horizon.steps, False, 0.0)
        if serial:
            run = TrainingRun(store, recipe, seed, provenance())
            while not state.finished:
                state = run.work()
                progress(state)
        else:

            def beat() -> None:
                progress(state)

            with actor(Host, recipe.resources.gpus) as host:
                attend(host.begin.remote(store, recipe, seed, provenance()), beat)
                while not state.finished:
                    state = attend(host.work.remote(CHUNK), beat)
                    beat()
    end = trajectory.end()
    assert end is not None
    return end


def parents(recipe: Recipe, seed: int) -> list[tuple[str, int]]:
    """The runs, as (recipe, seed), whose ends a run needs."""
    needed = [recipe.start]
    if isinstance(recipe.objective, Opd) and recipe.objective.teacher is not None:
        needed.append(recipe.objective.teacher)
    return [
        (start.recipe, seed if start.seed is None else start.seed) for start in needed if isinstance(start, FinalOf)
    ]


def require_parents(store: Store, recipe: Recipe, seed: int) -> None:
    """Errors: ValueError naming a run that must be trained first."""
    for name, number in parents(recipe, seed):
        if Trajectory(store, name, number).end() is None:
            raise ValueError(f"{recipe.name} seed {seed} starts from {name} seed {number}, which is not complete")
