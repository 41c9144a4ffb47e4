"""Rank 0 of a data parallel trainer: a `Trainer` that broadcasts every command to the worker ranks (`worker_rank`).

Rank 0 draws the responses, owns the teacher, evaluates, and reads and writes whole weights and states. It broadcasts a
step's batch; each rank runs forward and backward on its sequences, and rank 0 merges the measurements and decides
whether the update happens. Batches, draws and decisions are those of one process, so the losses are, too, up to the
order of fp32 sums.

Without a rollout engine, rank 0 holds the whole served weights besides its shard, and draws with them.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opd_ops.batch import Batch
from opd_ops.objectives.loss import Phase, StepInputs
from opd_ops.recipe import Recipe
from opd_ops.tasks.task import TaskLike
from opd_ops.teacher.scores import Scorer
from opd_ops.training import batches, sharded, student
from opd_ops.training.inputs import InitialState, RolloutSources
from opd_ops.training.loop import Trainer
from opd_ops.training.optimizer import MOMENTS, Masters, Moments
from opd_ops.training.ranks import Ranks, spans
from opd_ops.training.shared_teacher import SharedTeacher
from opd_ops.training.terms import Terms


@dataclass(frozen=True, kw_only=True)
class Step:
    """What rank 0 broadcasts of a step. teacher_batch: None where it is `batch`. vocabulary: of the teacher; 0 without
    one."""

    number: int
    batch: Batch
    teacher_batch: Batch | None
    vocabulary: int


def share_teacher(recipe: Recipe, step: Step, ranks: Ranks, teacher: Scorer | None) -> SharedTeacher | None:
    """What scores a step's responses on this rank; None without a teacher. teacher: on rank 0."""
    if not step.vocabulary:
        return None
    size, rows = recipe.precision.micro_batch, len(step.batch.ids)
    teacher_batch = step.batch if step.teacher_batch is None else step.teacher_batch
    by_rank = [spans(rank, ranks.count, rows, size) for rank in range(ranks.count)]
    return SharedTeacher(ranks, teacher_batch.to(ranks.device), by_rank, step.vocabulary, teacher)


def bind_terms(
    recipe: Recipe, seed: int, step: Step, ranks: Ranks, teacher: SharedTeacher | None, phase: Phase
) -> Terms:
    """The terms of a step on this rank's rows. Errors: ValueError, the same on every rank, or those of the teacher."""
    batch = step.batch.to(ranks.device)
    return Terms(
        StepInputs(
            recipe=recipe,
            batch=batch,
            teacher_batch=batch if teacher is None else teacher.teacher_batch,
            teacher=teacher,
            draws=batches.step_draws(recipe, seed, step.number, batch).to(ranks.device),
            spans=spans(ranks.rank, ranks.count, len(batch.ids), recipe.precision.micro_batch),
            phase=phase,
            all_reduce=ranks.all_reduce,
        )
    )


class Rank0Trainer(Trainer):
    """`Trainer` on rank 0 of `ranks`.

    broken: a step failed where the worker ranks cannot know it, and they follow no more.
    """

    optimizer: sharded.ShardedMasters

    def __init__(
        self,
        ranks: Ranks,
        recipe: Recipe,
        seed: int,
        start: InitialState,
        task: TaskLike,
        teacher: Scorer | None = None,
        sources: RolloutSources | None = None,
        *,
        phase: Phase = lambda name: nullcontext(),
    ) -> None:
        self.ranks = ranks
        self._workers_wait = False  # for the decision whether the step is made
        self._shared_teacher: SharedTeacher | None = None
        super().__init__(recipe, seed, start, task, teacher, sources, device=str(ranks.device), phase=phase)

    def weights(self) -> dict[str, Tensor]:
        """The fp32 masters by parameter name, whole, in main memory."""
        return self._collective("gather_masters")

    def moments(self) -> Moments:
        """The optimizer's state, whole, in main memory."""
        return self._collective("gather_moments")

    def close(self) -> None:
        """End the worker ranks' loops."""
        with self._command("end"):
            pass

    def differentiate(self, responses: Any) -> Any:
        """Errors: ValueError; gradients are compared in one process."""
        raise ValueError(
            f"{self.recipe.name} has {self.ranks.count} workers, and gradients are compared in one process: set "
            "resources.workers=1"
        )

    def _build_model(self, start: InitialState) -> Any:
        self.ranks.broadcast((self.recipe, self.seed, start.config))
        return sharded.build(self.recipe, start.config, start.weights, self.ranks)

    def _make_masters(self, weights: dict[str, Tensor], start: InitialState) -> Masters:
        return sharded.ShardedMasters(self.model, weights, self.recipe, self.ranks)

    def _build_sampler(self, start: InitialState) -> Any:
        whole = student.build(self.recipe, start.config, start.weights).to(self.device)
        return whole.requires_grad_(False)

    def _push_weights(self) -> None:
        if not self.syncing.due(self.step):
            return
        if not self.syncing.shared:
            self.syncing.push(self._collective("gather_served"), self.step)
            return
        whole = dict(self.engine.model.named_parameters())  # type: ignore[attr-defined]
        with self._command("gather_served"), torch.no_grad():
            self.optimizer.gather_each(self.optimizer.served, lambda name, tensor: whole[name].copy_(tensor))
        self.syncing.push({}, self.step)

    def _score_batch(self, batch: Batch) -> Tensor:
        with self._command("score", batch.to(torch.device("cpu"))):
            return super()._score_batch(batch)

    def _collect_state(self) -> dict[str, Tensor]:
        return self._collective("gather_state")

    def _restore_state(self, tensors: dict[str, Tensor], steps: int) -> None:
        names = [f"master/{name}" for name in self.optimizer.shapes] + (self._moment_names() if steps else [])
        sharded.require_whole(tensors, self.optimizer.shapes, names)
        self._collective("scatter_state", steps, tensors=tensors)

    def _adopt_moments(self, moments: Moments) -> None:
        sharded.require_whole(moments.tensors, self.optimizer.shapes, self._moment_names())
        self._collective("scatter_moments", moments.steps, tensors=moments.tensors)

    def _moment_names(self) -> list[str]:
        return [f"{moment}/{name}" for moment in MOMENTS for name in self.optimizer.shapes]

    def _bind_terms(self, step: int, batch: Batch, teacher_batch: Batch | None) -> Terms:
        vocabulary = self.teacher.vocabulary if self.teacher else 0
        teacher_batch = None if teacher_batch is batch else teacher_batch
        message = Step(number=step, batch=batch, teacher_batch=teacher_batch, vocabulary=vocabulary)
        with self._command("step", message, fails_everywhere=ValueError):
            self._shared_teacher = share_teacher(self.recipe, message, self.ranks, self.teacher)
            return bind_terms(self.recipe, self.seed, message, self.ranks, self._shared_teacher, self.phase)

    def _backward(self, terms: Terms) -> dict[str, float]:
        with self._break_on_error():
            losses = super()._backward(terms)
            for rank, (theirs, measurements) in enumerate(self.ranks.gather((losses, None))):
                if rank:
                    terms.merge(measurements)
                    losses = {name: loss + theirs[name] for name, loss in losses.items()}
        self._workers_wait = True
        return losses

    @contextmanager
    def _discard_on_error(self) -> Iterator[None]:
        try:
            with super()._discard_on_error():
                yield
        except BaseException:
            if self._workers_wait:
                self._workers_wait = False
                self.ranks.broadcast(None)  # no step
            raise

    def _update(self, step: int, rate: float) -> dict[str, Any]:
        self._workers_wait, self._shared_teacher = False, None
        with self._break_on_error():
            self.ranks.broadcast(rate)
            return super()._update(step, rate)

    def _collective(self, name: str, *args: Any, **rank0: Any) -> Any:
        """Call a method of the optimizer on all ranks; rank 0's result. rank0: arguments that only rank 0 passes."""
        with self._command(name, *args):
            return getattr(self.optimizer, name)(*args, **rank0)

    @contextmanager
    def _command(self, name: str, *args: Any, fails_everywhere: type[Exception] | tuple[()] = ()) -> Iterator[None]:
        """Broadcast a command, and run rank 0's share inside. fails_everywhere: errors that all ranks raise alike."""
        if self.broken:
            raise RuntimeError(f"{self.recipe.name}: a step failed on rank 0, and the other ranks follow no more")
        self._shared_teacher = None
        with self._break_on_error(fails_everywhere):
            self.ranks.broadcast((name, args))
            yield

    @contextmanager
    def _break_on_error(self, fails_everywhere: type[Exception] | tuple[()] = ()) -> Iterator[None]:
        """An error inside breaks the trainer, unless every rank knows it: the teacher's, or `fails_everywhere`."""
        try:
            yield
        except BaseException as error:
            known = self._shared_teacher is not None and self._shared_teacher.failed
            self.broken = not known and not isinstance(error, fails_everywhere)
            raise
