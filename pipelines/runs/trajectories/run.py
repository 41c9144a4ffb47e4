"""One run, advanced in chunks of steps: what is trained, what is kept of it, and how it ends.

The run lives in the store: snapshots, rollouts, resume state, and, at its end, its tables and end.json. Stopped at any
moment and started again, it goes on from the newest resume state and ends with the same snapshots. A step or an
evaluation that fails leaves the state before it, so that the run can go on once the cause is mended.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from opd_ops.recipe import Recipe, Replay
from pipelines import lake
from pipelines.lake.lake import partition_key
from pipelines.runs.clock import Clock, write_timing
from pipelines.runs.cluster.deaths import tell
from pipelines.runs.resources.placement import Placement, Spot
from pipelines.runs.trajectories.crew import Died
from pipelines.store.objects import Store, Unwritable
from pipelines.store.rollouts import Rollouts
from pipelines.store.snapshot import folder
from pipelines.store.trajectory import OtherInputs, Trajectory
from pipelines.store.writer import Writer
from pipelines.studies.catalog import spell

if TYPE_CHECKING:
    from torch import Tensor

    from opd_ops.objectives.loss import Phase
    from opd_ops.training.ranks import Ranks

CHUNK = 5  # optimizer steps between two progress reports
POSITIONS = 20  # steps of a run whose means by position are kept


class LearningFailed(ValueError):
    """A gate never opened, or was passed, or an update never reached the norm that ends its run."""


class StepFailed(ValueError):
    """A step or an evaluation could not be made; the state before it is kept."""


@dataclass(frozen=True)
class Progress:
    """How far a run is. `steps` is the limit where a gate may end it sooner."""

    step: int
    steps: int
    finished: bool
    seconds: float  # wall seconds of work in this process so far


class TrainingRun:
    """One run of `recipe`. `placement` has room for actors that draw and score; None is this process.

    ranks: the processes that train it together, of which this one is the first. Errors: ValueError for a recipe that
    has workers, and no others to follow this one.
    """

    def __init__(
        self,
        store: Store,
        recipe: Recipe,
        seed: int,
        provenance: dict[str, Any],
        placement: Placement | None = None,
        ranks: "Ranks | None" = None,
    ) -> None:
        import torch

        from pipelines.runs import aside
        from pipelines.runs.trajectories import norms
        from pipelines.runs.trajectories.assembly import Runtime, assemble
        from pipelines.store import proof

        workers = recipe.resources.workers
        if workers != (1 if ranks is None else ranks.count):
            raise ValueError(
                f"{recipe.name} has resources.workers={workers}, which are processes on Ray, and is asked to train in "
                "this one: leave out serial, or set workers=1"
            )
        torch.set_num_threads(recipe.resources.threads)
        self.trajectory = Trajectory(store, recipe.name, seed)
        self.writer = Writer(self._commit)
        self.clock = Clock(beside=lambda: self.writer.cpu)
        self.before = 0.0  # wall seconds of earlier processes
        self.recipe, self.seed = recipe, seed
        self.rollouts = Rollouts(store, self.trajectory.prefix)
        self.snapshots = _snapshots(recipe)
        aside.settle(store, recipe.name, seed)
        if line := aside.replace_start(self.trajectory, recipe):
            tell(line)
        resumed = self.trajectory.load_resume()
        moved = self._moved(resumed)
        with self.clock.phase("start"):
            phase: Phase = lambda name: self.clock.phase(name)  # noqa: E731
            runtime = Runtime(placement=placement or Placement(Spot()), phase=phase, ranks=ranks)
            prepare = partial(assemble, self.trajectory, recipe, provenance, runtime)
            try:
                made = prepare(resumed[1] if resumed else None)
            except OtherInputs:
                if self.trajectory.progressed():
                    raise
                tell(aside.make_way(store, recipe.name, seed))
                resumed, moved = None, False
                made = prepare(None)
        self.trainer, self.task, self.fingerprint = made.trainer, made.task, made.fingerprint
        self.tables: dict[str, list[dict[str, Any]]] = {"training": [], "evaluation": [], "positions": [], "sync": []}
        self.parent: int | None = None
        self.due = False  # what follows the last step is still to be done
        self._begin(resumed)
        if moved:
            self._save(self.trainer.step)  # what is made from here on is these workers'
        self.reach = None if made.until is None else norms.Reach(made.until, proof.proven(self.trajectory, 0))

    def work(self, steps: int = CHUNK, *, settled: bool = True) -> Progress:
        """Advance by at most `steps` optimizer steps. settled: and return once their snapshots are committed."""
        for _ in range(steps):
            if self._ended():
                break
            if not self.due:
                self._advance()
            if self._follow(self.trainer.step):
                return self._progress(True)
        if settled:
            self._written()
        return self._progress(self._ended())

    def _follow(self, step: int) -> bool:
        """What comes after a step: its snapshot, and the run's end (then True) or maybe a resume state."""
        horizon = self.recipe.horizon
        self.due = True
        if step in self.snapshots and self.parent != step:
            self._snapshot(step)
        ended = self._gate(step) or self._reached(step) or step == horizon.steps
        if ended:
            self._finish(step)
        self.due = False
        if not ended and step % horizon.resume_every == 0:
            self._save(step)
        return ended

    def _progress(self, finished: bool) -> Progress:
        seconds = self.clock.wall - self.before
        return Progress(self.trainer.step, self.recipe.horizon.steps, finished, seconds)

    def _moved(self, resumed: tuple[int, dict[str, Any], dict[str, Any]] | None) -> bool:
        """Whether another number of workers was at work before. Errors: ValueError where these cannot go on from it."""
        if not self.trajectory.registered():
            return False
        step, workers = (resumed[0] if resumed else 0), self.recipe.resources.workers
        facts = resumed[2] if resumed else self.trajectory.run().get("provenance") or {}
        before = facts.get("workers", 1)
        if before == workers:
            return False
        if self.trajectory.begun(step) or any(drawn > step for drawn in self.rollouts.steps()):
            raise ValueError(
                f"{self.recipe.name} seed {self.seed}: after step {step}, from which it goes on, resources.workers="
                f"{before} made weights or rollouts whose last digits {workers} would not repeat: set workers={before} "
                "until the next resume state"
            )
        return True

    def _begin(self, resumed: tuple[int, dict[str, Any], dict[str, Any]] | None) -> None:
        if resumed is None:
            self._snapshot(0)
            self._written()  # what all others are kept beside
        else:
            step, tensors, facts = resumed
            self.trainer.restore(tensors, facts["trainer"], step)
            self.tables, self.parent, self.due = facts["tables"], facts["parent"], facts.get("due", False)
            started = self.clock.seconds["start"]
            self.clock = Clock(facts["timing"], lambda: self.writer.cpu)
            self.before = self.clock.wall
            for i, seconds in enumerate(started):
                self.clock.seconds["start"][i] += seconds
        if not self.tables["evaluation"]:
            self.tables["evaluation"] += self._evaluate()

    def _ended(self) -> bool:
        return self.trajectory.end() is not None

    def _advance(self) -> None:
        """One step. Errors: as `_mendable`."""
        with self._mendable(), self.clock.phase("train"):
            advanced = self.trainer.advance()
        self.tables["training"].append(advanced.row)
        self.tables["sync"] += advanced.syncs
        step, steps = self.trainer.step, self.recipe.horizon.steps
        if step % max(1, steps // POSITIONS) == 0:
            self.tables["positions"] += advanced.positions
        if isinstance(self.recipe.rollout.source, Replay):
            return  # its rollouts lie beside the run that drew them
        engine = self.trainer.teacher_engine or self.trainer.engine
        drawn = {"seed": self.seed, "engine": engine.name, "engine_release": engine.release}
        drawn["temperature"] = self.recipe.rollout.temperature
        self.rollouts.append(vars(response) | drawn for response in advanced.responses)

    @contextmanager
    def _mendable(self) -> Iterator[None]:
        """Errors: StepFailed in one line for what fails inside, after the state before it was kept."""
        try:
            yield
        except Exception as error:
            line = reason(error)
            if line is None:
                raise
            last = self.trainer.step
            if self.trainer.broken:
                outcome = "the same command goes on from the newest resume state"
            else:
                self._save(last)
                outcome = f"the state after step {last} is kept"
            anew = f"; {self._anew()}" if isinstance(error, FloatingPointError | ValueError) else ""
            raise StepFailed(
                f"{line} ({self.recipe.name} seed {self.seed}: {outcome}, its last snapshot is step "
                f"{self.parent}{anew})"
            ) from error

    def _anew(self) -> str:
        """The command that makes a change of the recipe possible."""
        return f"a changed recipe begins anew: opd study run {spell(self.recipe.study)} --replace {self.recipe.arm}"

    def _evaluate(self, temperature: float | None = None) -> list[dict[str, Any]]:
        with self._mendable(), self.clock.phase("evaluate"):
            return self.trainer.evaluate(temperature)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Time of snapshots. Errors: StepFailed in one line where the store cannot be written."""
        try:
            with self.clock.phase("snapshot"):
                yield
        except OSError as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            remedy = "" if isinstance(error, Unwritable) else "; mend that, and the same command goes on"
            raise StepFailed(
                f"{self.recipe.name} seed {self.seed}: what is committed stays, and step {self.trainer.step} cannot be "
                f"kept: {line}{remedy}"
            ) from error

    def _snapshot(self, step: int) -> None:
        with self._writing():
            self.writer.put(step, self.trainer.weights(), self.parent)
            if step in self.recipe.resources.keep_moments:
                moments = self.trainer.moments()
                self.trajectory.save_moments(step, moments.steps, moments.tensors)
        self.parent = step

    def _commit(self, step: int, weights: "dict[str, Tensor]", parent: int | None) -> None:
        with self._owned(self.trajectory.snapshot(step).folder):
            self.trajectory.commit(step, weights, parent, self.recipe.precision.snapshots)

    def _owned(self, *written: str) -> AbstractContextManager[list[str | None]]:
        return self.trajectory.owned(self.fingerprint, *written)

    def _written(self) -> None:
        """Wait until every snapshot is committed. Errors: those of the store."""
        with self._writing():
            self.writer.flush()
        self.clock.book("snapshot")

    def _gate(self, step: int) -> bool:
        """True when the gate opens at this step. Errors: LearningFailed past its band or at the step limit."""
        gate = self.recipe.horizon.gate
        limit = step == self.recipe.horizon.steps
        if gate is None or (step % gate.every and not limit):
            return False
        row = self._evaluate(gate.temperature)[0]
        self.tables["evaluation"].append(row)
        accuracy = row["accuracy"]
        where = f"{self.recipe.name} seed {self.seed}: accuracy {accuracy:.3f} at T={gate.temperature:g} at step {step}"
        if accuracy > gate.high:
            raise LearningFailed(
                f"{where} is past the gate [{gate.low}, {gate.high}]; lower the learning rate ({self._anew()})"
            )
        if accuracy < gate.low and limit:
            raise LearningFailed(
                f"{where}, the limit, is below the gate [{gate.low}, {gate.high}]; raise the limit ({self._anew()})"
            )
        return accuracy >= gate.low

    def _reached(self, step: int) -> bool:
        """True when the update is as large as that which ends the run. Errors: LearningFailed at the step limit."""
        until = self.recipe.horizon.until
        if until is None or self.reach is None:
            return False
        norm, wanted = self.reach.distance(self.trainer.weights()), self.reach.norm
        if norm < wanted and step == self.recipe.horizon.steps:
            raise LearningFailed(
                f"{self.recipe.name} seed {self.seed}: the update's norm {norm:.4g} at step {step}, the limit, is "
                f"below the {wanted:.4g} of {until.recipe}; raise the limit or the learning rate ({self._anew()})"
            )
        return norm >= wanted

    def _save(self, step: int) -> None:
        self._written()  # a resume state's parent is one that is there
        with self._writing(), self._owned(f"{self.trajectory.prefix}/resume/{folder(step)}") as written:
            written.append(self.rollouts.flush())
            tensors, facts = self.trainer.state()
            self.trajectory.save_resume(
                step,
                tensors,
                {"trainer": facts, "tables": self.tables, "parent": self.parent, "timing": self.clock.seconds}
                | ({"due": True} if self.due else {})
                | ({"workers": workers} if (workers := self.recipe.resources.workers) > 1 else {}),
            )

    def _finish(self, step: int) -> None:
        """Last snapshot and evaluation, then the tables, then end.json, which makes the run complete."""
        if self.parent != step:
            self._snapshot(step)
        final = self._evaluate()
        self._written()
        self.tables["sync"] += self.trainer.syncing.take_rows()
        # The gate's one-sample reading of this step gives way to the full evaluation.
        self.tables["evaluation"] = [row for row in self.tables["evaluation"] if row["step"] != step] + final
        self.task.close()
        recipe, store, prefix = self.recipe, self.trajectory.store, self.trajectory.prefix
        study_key, place = {"study": recipe.study}, {"recipe": recipe.name, "seed": self.seed}
        partitions = [partition_key(table, **place) for table in (*self.tables, "timing")]
        with self._owned(f"{prefix}/end.json", *partitions) as written:
            written.append(self.rollouts.flush())
            for table, rows in self.tables.items():
                lake.write(store, table, [study_key | place | row for row in rows], **place)
            write_timing(store, recipe.study, recipe.name, self.seed, step, self.clock)
            self.trajectory.finish(
                {
                    "step": step,
                    "digest": self.trajectory.digest(step),
                    "snapshots": self.trajectory.steps(),
                    "evaluation": final,
                }
            )


def _snapshots(recipe: Recipe) -> set[int]:
    """Steps whose weights are kept. Errors: ValueError naming a step whose moments would lie beside no weights."""
    steps = set(recipe.horizon.snapshot_steps())
    ends = {recipe.horizon.steps}
    if alone := sorted(set(recipe.resources.keep_moments) - steps - ends):
        raise ValueError(
            f"{recipe.name}: resources.keep_moments names step {alone[0]}, which has no snapshot; those of steps "
            f"{', '.join(map(str, sorted(steps | ends)))} have one"
        )
    return steps


def reason(error: Exception) -> str | None:
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
