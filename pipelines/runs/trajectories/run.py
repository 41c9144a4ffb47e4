"""One run, advanced in chunks of steps: training, what is stored, and how the run ends.

The store holds the run: snapshots, rollouts, resume states and, at its end, its tables and end.json. A run that is
stopped at any moment restarts from its newest resume state and ends with the same snapshots. When a step or an
evaluation fails, the state before it is saved, so that the run can go on once the cause is fixed.
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
from pipelines.runs.cluster.worker_failures import warn
from pipelines.runs.resources.placement import Placement, Spot
from pipelines.runs.trajectories.failures import LearningFailed, StepFailed, explain
from pipelines.store.objects import Store, Unwritable
from pipelines.store.rollouts import Rollouts
from pipelines.store.snapshot import folder
from pipelines.store.trajectory import OtherInputs, Trajectory
from pipelines.store.writer import Writer
from pipelines.studies.catalog import study_arg

if TYPE_CHECKING:
    from torch import Tensor

    from opd_ops.objectives.loss import Phase
    from opd_ops.training.ranks import Ranks

CHUNK = 5  # optimizer steps between two progress reports
POSITIONS = 20  # steps of a run whose means by position are kept


@dataclass(frozen=True)
class Progress:
    """How far a run is. `steps` is the limit where a gate may end it sooner."""

    step: int
    steps: int
    finished: bool
    seconds: float  # wall seconds of work in this process so far


class TrainingRun:
    """One run of `recipe`. placement: of the rollout and teacher actors; None draws and scores in this process.

    ranks: the data parallel ranks, of which this process is rank 0. Errors: ValueError for a recipe with several
    workers and no ranks.
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

        from pipelines.runs import set_aside
        from pipelines.runs.trajectories import norms
        from pipelines.runs.trajectories.assembly import Runtime, assemble
        from pipelines.store import integrity

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
        self.snapshots = _snapshot_steps(recipe)
        set_aside.settle(store, recipe.name, seed)
        if line := set_aside.replace_start(self.trajectory, recipe):
            warn(line)
        resumed = self.trajectory.load_resume()
        moved = self._workers_changed(resumed)
        with self.clock.phase("start"):
            phase: Phase = lambda name: self.clock.phase(name)  # noqa: E731
            runtime = Runtime(placement=placement or Placement(Spot()), phase=phase, ranks=ranks)
            prepare = partial(assemble, self.trajectory, recipe, provenance, runtime)
            try:
                made = prepare(resumed[1] if resumed else None)
            except OtherInputs:
                if self.trajectory.has_progress():
                    raise
                warn(set_aside.make_way(store, recipe.name, seed))
                resumed, moved = None, False
                made = prepare(None)
        self.trainer, self.task, self.fingerprint = made.trainer, made.task, made.fingerprint
        self.tables: dict[str, list[dict[str, Any]]] = {"training": [], "evaluation": [], "positions": [], "sync": []}
        self.parent: int | None = None
        self.due = False  # the last step is not closed yet: its snapshot, gate or resume state is missing
        self._restore_or_start(resumed)
        if moved:
            self._save_resume(self.trainer.step)  # from here on the bytes are those of these workers
        self.reach = (
            None if made.until is None else norms.Reach(made.until, integrity.verified_refs(self.trajectory, 0))
        )

    def work(self, steps: int = CHUNK, *, settled: bool = True) -> Progress:
        """Advance by at most `steps` optimizer steps. settled: return only once their snapshots are committed."""
        for _ in range(steps):
            if self._is_complete():
                break
            if not self.due:
                self._advance()
            if self._close_step(self.trainer.step):
                return self._report(True)
        if settled:
            self._flush_snapshots()
        return self._report(self._is_complete())

    def _close_step(self, step: int) -> bool:
        """Write a step's snapshot, then end the run (True) or maybe save a resume state."""
        horizon = self.recipe.horizon
        self.due = True
        if step in self.snapshots and self.parent != step:
            self._snapshot(step)
        ended = self._reaches_gate(step) or self._reaches_norm(step) or step == horizon.steps
        if ended:
            self._finish(step)
        self.due = False
        if not ended and step % horizon.resume_every == 0:
            self._save_resume(step)
        return ended

    def _report(self, finished: bool) -> Progress:
        seconds = self.clock.wall - self.before
        return Progress(self.trainer.step, self.recipe.horizon.steps, finished, seconds)

    def _workers_changed(self, resumed: tuple[int, dict[str, Any], dict[str, Any]] | None) -> bool:
        """Whether the run was trained by another number of workers. Errors: ValueError where these cannot go on."""
        if not self.trajectory.is_registered():
            return False
        step, workers = (resumed[0] if resumed else 0), self.recipe.resources.workers
        facts = resumed[2] if resumed else self.trajectory.run().get("provenance") or {}
        before = facts.get("workers", 1)
        if before == workers:
            return False
        if self.trajectory.steps_after(step) or any(drawn > step for drawn in self.rollouts.steps()):
            raise ValueError(
                f"{self.recipe.name} seed {self.seed}: after step {step}, from which it goes on, resources.workers="
                f"{before} made weights or rollouts whose last digits {workers} would not repeat: set workers={before} "
                "until the next resume state"
            )
        return True

    def _restore_or_start(self, resumed: tuple[int, dict[str, Any], dict[str, Any]] | None) -> None:
        if resumed is None:
            self._snapshot(0)
            self._flush_snapshots()  # the others are stored as updates of this one
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

    def _is_complete(self) -> bool:
        return self.trajectory.end() is not None

    def _advance(self) -> None:
        """One step. Errors: as `_save_on_error`."""
        with self._save_on_error(), self.clock.phase("train"):
            result = self.trainer.advance()
        self.tables["training"].append(result.row)
        self.tables["sync"] += result.syncs
        step, steps = self.trainer.step, self.recipe.horizon.steps
        if step % max(1, steps // POSITIONS) == 0:
            self.tables["positions"] += result.positions
        if isinstance(self.recipe.rollout.source, Replay):
            return  # its rollouts are stored with the run that drew them
        engine = self.trainer.teacher_engine or self.trainer.engine
        drawn = {"seed": self.seed, "engine": engine.name, "engine_release": engine.release}
        drawn["temperature"] = self.recipe.rollout.temperature
        self.rollouts.append(vars(response) | drawn for response in result.responses)

    @contextmanager
    def _save_on_error(self) -> Iterator[None]:
        """Errors: StepFailed in one line for a failure inside, after the state before it was saved."""
        try:
            yield
        except Exception as error:
            line = explain(error)
            if line is None:
                raise
            last = self.trainer.step
            if self.trainer.broken:
                outcome = "the same command goes on from the newest resume state"
            else:
                self._save_resume(last)
                outcome = f"the state after step {last} is kept"
            anew = f"; {self._replace_command()}" if isinstance(error, FloatingPointError | ValueError) else ""
            raise StepFailed(
                f"{line} ({self.recipe.name} seed {self.seed}: {outcome}, its last snapshot is step "
                f"{self.parent}{anew})"
            ) from error

    def _replace_command(self) -> str:
        """The command to run after a change of the recipe, as a remedy."""
        return f"a changed recipe begins anew: opd study run {study_arg(self.recipe.study)} --replace {self.recipe.arm}"

    def _evaluate(self, temperature: float | None = None) -> list[dict[str, Any]]:
        with self._save_on_error(), self.clock.phase("evaluate"):
            return self.trainer.evaluate(temperature)

    @contextmanager
    def _time_writing(self) -> Iterator[None]:
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
        with self._time_writing():
            self.writer.put(step, self.trainer.weights(), self.parent)
            if step in self.recipe.resources.keep_moments:
                moments = self.trainer.moments()
                self.trajectory.save_moments(step, moments.steps, moments.tensors)
        self.parent = step

    def _commit(self, step: int, weights: "dict[str, Tensor]", parent: int | None) -> None:
        with self._require_owner(self.trajectory.snapshot(step).folder):
            self.trajectory.commit(step, weights, parent, self.recipe.precision.snapshots)

    def _require_owner(self, *written: str) -> AbstractContextManager[list[str | None]]:
        return self.trajectory.require_owner(self.fingerprint, *written)

    def _flush_snapshots(self) -> None:
        """Wait until every snapshot is committed. Errors: those of the store."""
        with self._time_writing():
            self.writer.flush()
        self.clock.book("snapshot")

    def _reaches_gate(self, step: int) -> bool:
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
                f"{where} is past the gate [{gate.low}, {gate.high}]; lower the learning rate "
                f"({self._replace_command()})"
            )
        if accuracy < gate.low and limit:
            raise LearningFailed(
                f"{where}, the limit, is below the gate [{gate.low}, {gate.high}]; raise the limit "
                f"({self._replace_command()})"
            )
        return accuracy >= gate.low

    def _reaches_norm(self, step: int) -> bool:
        """True when the update is as large as that which ends the run. Errors: LearningFailed at the step limit."""
        until = self.recipe.horizon.until
        if until is None or self.reach is None:
            return False
        norm, wanted = self.reach.distance(self.trainer.weights()), self.reach.norm
        if norm < wanted and step == self.recipe.horizon.steps:
            raise LearningFailed(
                f"{self.recipe.name} seed {self.seed}: the update's norm {norm:.4g} at step {step}, the limit, is "
                f"below the {wanted:.4g} of {until.recipe}; raise the limit or the learning rate "
                f"({self._replace_command()})"
            )
        return norm >= wanted

    def _save_resume(self, step: int) -> None:
        self._flush_snapshots()  # so that a resume state's parent is committed
        with self._time_writing(), self._require_owner(f"{self.trajectory.prefix}/resume/{folder(step)}") as written:
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
        self._flush_snapshots()
        self.tables["sync"] += self.trainer.syncing.take_rows()
        # The full evaluation replaces the gate's one-sample evaluation of this step.
        self.tables["evaluation"] = [row for row in self.tables["evaluation"] if row["step"] != step] + final
        self.task.close()
        recipe, store, prefix = self.recipe, self.trajectory.store, self.trajectory.prefix
        study_key, place = {"study": recipe.study}, {"recipe": recipe.name, "seed": self.seed}
        partitions = [partition_key(table, **place) for table in (*self.tables, "timing")]
        with self._require_owner(f"{prefix}/end.json", *partitions) as written:
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


def _snapshot_steps(recipe: Recipe) -> set[int]:
    """Steps whose weights are stored. Errors: ValueError naming a step of `keep_moments` without a snapshot."""
    steps = set(recipe.horizon.snapshot_steps())
    ends = {recipe.horizon.steps}
    if alone := sorted(set(recipe.resources.keep_moments) - steps - ends):
        raise ValueError(
            f"{recipe.name}: resources.keep_moments names step {alone[0]}, which has no snapshot; those of steps "
            f"{', '.join(map(str, sorted(steps | ends)))} have one"
        )
    return steps
