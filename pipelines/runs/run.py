"""One run, advanced in chunks of steps: what is trained, what is kept of it, and how it ends.

The run lives in the store: snapshots, rollouts, resume state, and, at its end, its tables and end.json. Stopped at any
moment and started again, it goes on from the newest resume state and ends with the same snapshots. A step that fails
leaves the state before it, so that the run can go on once the cause is mended.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from opd_ops.recipe import Recipe, Replay, Teacher, opd_of
from pipelines import lake
from pipelines.runs.clock import Clock, write_timing
from pipelines.runs.crew import Died
from pipelines.runs.placement import Placement, Spot
from pipelines.store.objects import Store
from pipelines.store.rollouts import Rollouts
from pipelines.store.trajectory import Trajectory

CHUNK = 5  # optimizer steps between two progress reports
POSITIONS = 20  # steps of a run whose means by position are kept


class LearningFailed(ValueError):
    """A gate never opened, or was passed."""


class StepFailed(ValueError):
    """A step could not be made; the state before it is kept."""


@dataclass(frozen=True)
class Progress:
    """How far a run is. `steps` is the limit where a gate may end it sooner."""

    step: int
    steps: int
    finished: bool
    seconds: float  # wall seconds of work in this process so far


class TrainingRun:
    """One run of `recipe`. `placement` has room for actors that draw and score; None is this process."""

    def __init__(
        self,
        store: Store,
        recipe: Recipe,
        seed: int,
        provenance: dict[str, Any],
        placement: Placement | None = None,
    ) -> None:
        import torch

        torch.set_num_threads(recipe.resources.threads)
        self.clock = Clock()
        self.before = 0.0  # wall seconds of earlier processes
        self.recipe, self.seed = recipe, seed
        self.trajectory = Trajectory(store, recipe.name, seed)
        self.rollouts = Rollouts(store, self.trajectory.prefix)
        with self.clock.phase("start"):
            self._build(store, provenance, placement or Placement(Spot()))
        self.tables: dict[str, list[dict[str, Any]]] = {"training": [], "evaluation": [], "positions": [], "sync": []}
        self.snapshots = set(recipe.horizon.snapshot_steps())
        self.parent: int | None = None
        self._begin()

    def work(self, steps: int = CHUNK) -> Progress:
        """Advance by at most `steps` optimizer steps."""
        horizon = self.recipe.horizon
        for _ in range(steps):
            if self._ended():
                break
            self._advance()
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

    def _build(self, store: Store, provenance: dict[str, Any], placement: Placement) -> None:
        from opd_ops.tasks.guard import Guarded
        from opd_ops.tasks.registry import build
        from opd_ops.training.loop import Trainer
        from pipelines.runs import engines, starts, teaching

        recipe = self.recipe
        start = starts.load(store, recipe.start, self.seed)
        inputs: dict[str, Any] = {"start": start.digest}
        scorer, drawing = None, None
        teacher, opd = None, opd_of(recipe.objective)
        if opd:
            teacher = teaching.source(store, opd, start, self.seed)
            inputs |= {"teacher": teacher.digest} if opd.teacher else {}
        self.task = Guarded(build(recipe.task, start.folder), recipe.resources.verifier_seconds)
        inputs |= {"task": facts} if (facts := self.task.facts()) else {}
        self.trajectory.register(
            {
                "identity": recipe.identity(),
                "fingerprint": recipe.fingerprint(),
                "inputs": inputs,
                "model": start.plain_config(),
                "provenance": provenance,
            }
        )
        if teacher:
            scorer = teaching.scorer(store, recipe, self.seed, start, teacher, placement)
            if isinstance(recipe.rollout.source, Teacher):
                drawing = teaching.engine(recipe, teacher)
        self.trainer = Trainer(
            recipe,
            self.seed,
            start.config,
            start.weights,
            self.task,
            scorer,
            engine=engines.of(recipe, start.plain_config(), placement),
            teacher_engine=drawing,
            stored=self._replayed(store),
            rewards=self.task.rewards,
            device="cuda" if recipe.resources.gpus else "cpu",
            phase=lambda name: self.clock.phase(name),
        )

    def _replayed(self, store: Store) -> Callable[[int], list[dict[str, Any]]] | None:
        source = self.recipe.rollout.source
        if not isinstance(source, Replay):
            return None
        seed = self.seed if source.seed is None else source.seed
        return Rollouts(store, Trajectory(store, source.recipe, seed).prefix).read

    def _progress(self, finished: bool) -> Progress:
        seconds = self.clock.wall - self.before
        return Progress(self.trainer.step, self.recipe.horizon.steps, finished, seconds)

    def _begin(self) -> None:
        resumed = self.trajectory.load_resume()
        if resumed is None:
            self._snapshot(0)
            with self.clock.phase("evaluate"):
                self.tables["evaluation"] += self.trainer.evaluate()
            return
        step, tensors, facts = resumed
        self.trainer.restore(tensors, facts["trainer"], step)
        self.tables, self.parent = facts["tables"], facts["parent"]
        started = self.clock.seconds["start"]
        self.clock = Clock(facts["timing"])
        self.before = self.clock.wall
        for i, seconds in enumerate(started):
            self.clock.seconds["start"][i] += seconds

    def _ended(self) -> bool:
        return self.trajectory.end() is not None

    def _advance(self) -> None:
        """One step. Errors: the step's own in one line, after the state before it was kept."""
        try:
            with self.clock.phase("train"):
                advanced = self.trainer.advance()
        except Exception as error:
            line = _reason(error)
            if line is None:
                raise
            last = self.trainer.step
            self._save(last)
            raise StepFailed(
                f"{line} ({self.recipe.name} seed {self.seed}: the state after step {last} is kept, "
                f"its last snapshot is step {self.parent})"
            ) from error
        self.tables["training"].append(advanced.row)
        self.tables["sync"] += advanced.syncs
        step, steps = self.trainer.step, self.recipe.horizon.steps
        if step % max(1, steps // POSITIONS) == 0:
            self.tables["positions"] += advanced.positions
        engine = self.trainer.teacher_engine or self.trainer.engine
        drawn = {"seed": self.seed, "engine": engine.name, "engine_release": engine.release}
        drawn["temperature"] = self.recipe.rollout.temperature
        self.rollouts.append(asdict(response) | drawn for response in advanced.responses)

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
        self.tables["evaluation"].append(row)
        accuracy = row["accuracy"]
        where = f"{self.recipe.name} seed {self.seed}: accuracy {accuracy:.3f} at T={gate.temperature:g} at step {step}"
        if accuracy > gate.high:
            raise LearningFailed(f"{where} is past the gate [{gate.low}, {gate.high}]; lower the learning rate")
        if accuracy < gate.low and limit:
            raise LearningFailed(f"{where}, the limit, is below the gate [{gate.low}, {gate.high}]; raise the limit")
        return accuracy >= gate.low

    def _save(self, step: int) -> None:
        with self.clock.phase("snapshot"):
            self.rollouts.flush()
            tensors, facts = self.trainer.state()
            self.trajectory.save_resume(
                step,
                tensors,
                {"trainer": facts, "tables": self.tables, "parent": self.parent, "timing": self.clock.seconds},
            )

    def _finish(self, step: int) -> None:
        """Last snapshot and evaluation, then the tables, then end.json, which makes the run complete."""
        if self.parent != step:
            self._snapshot(step)
        with self.clock.phase("evaluate"):
            final = self.trainer.evaluate()
        self.tables["sync"] += self.trainer.syncing.taken()
        # The gate's one-sample reading of this step gives way to the full evaluation.
        self.tables["evaluation"] = [row for row in self.tables["evaluation"] if row["step"] != step] + final
        self.task.close()
        self.rollouts.flush()
        recipe, store = self.recipe, self.trajectory.store
        keys = {"study": recipe.study, "recipe": recipe.name, "seed": self.seed}
        for table, rows in self.tables.items():
            lake.write(store, table, [keys | row for row in rows], recipe=recipe.name, seed=self.seed)
        write_timing(store, recipe.study, recipe.name, self.seed, step, self.clock)
        self.trajectory.finish(
            {
                "step": step,
                "digest": self.trajectory.digest(step),
                "snapshots": self.trajectory.steps(),
                "evaluation": final,
            }
        )


def _reason(error: Exception) -> str | None:
    """One line for a failure that is the run's own; None for one that is a mistake in the code."""
    import torch

    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    if memory:
        return (
            "out of memory: set resources.checkpoint_activations, or give the arm a new name with a smaller "
            "precision.micro_batch or rollout.batch"
        )
    if isinstance(error, FloatingPointError | ValueError | OSError | Died):
        return str(error).splitlines()[0]
    return None
