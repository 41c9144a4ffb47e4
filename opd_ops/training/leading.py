"""A trainer over several ranks: rank 0 is a `Trainer` like any other, and the others follow what it tells them.

Rank 0 draws the responses, asks the teacher, evaluates, and gives and takes whole weights and states. A step's batch is
told to every rank; each takes its sequences of it through its forward and backward pass, and what they measured comes
together on rank 0, which decides whether the step is made. Batches, draws and decisions are those of one process, so
the losses are, too, but for the order of fp32 sums.

Where no rollout engine was given, rank 0 holds the whole served weights besides its part, and draws with them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from opd_ops.batch import Batch
from opd_ops.recipe import Recipe
from opd_ops.teacher.scores import Scorer
from opd_ops.training import batches, sharded, student
from opd_ops.training.asking import Asking
from opd_ops.training.drawing import Phase
from opd_ops.training.loop import Trainer
from opd_ops.training.optimizer import MOMENTS, Masters, Moments
from opd_ops.training.ranks import Ranks, spans
from opd_ops.training.subspace import Bases
from opd_ops.training.terms import Terms


@dataclass(frozen=True, kw_only=True)
class Step:
    """What every rank is told of a step. behind: None where it is the batch. vocabulary: that the teacher shares."""

    number: int
    batch: Batch
    behind: Batch | None
    vocabulary: int


def asking(recipe: Recipe, step: Step, ranks: Ranks, teacher: Scorer | None) -> Asking | None:
    """What scores a step's responses on this rank; None where nothing does. teacher: on rank 0."""
    if not step.vocabulary:
        return None
    size, behind = recipe.precision.micro_batch, step.batch if step.behind is None else step.behind
    each = [spans(rank, ranks.count, len(step.batch.ids), size) for rank in range(ranks.count)]
    return Asking(ranks, behind.to(ranks.device), each, step.vocabulary, teacher)


def bind(recipe: Recipe, seed: int, step: Step, ranks: Ranks, teacher: Asking | None, phase: Phase) -> Terms:
    """The terms of a step on this rank's sequences. Errors: ValueError, the same on every rank, or those of asking."""
    batch, rows = step.batch.to(ranks.device), len(step.batch.ids)
    return Terms(
        recipe,
        batch,
        batch if teacher is None else teacher.behind,
        teacher,
        batches.draws(seed, step.number, rows, max(batch.width, recipe.rollout.max_new_tokens)).to(ranks.device),
        phase,
        spans=spans(ranks.rank, ranks.count, rows, recipe.precision.micro_batch),
        total=ranks.total,
    )


class Leading(Trainer):
    """`Trainer` on rank 0; its arguments are those of a trainer, after the ranks.

    broken: a step failed where the other ranks could not know it, and they follow no more.
    """

    optimizer: sharded.ShardedMasters

    def __init__(self, ranks: Ranks, *given: Any, **named: Any) -> None:
        self.ranks = ranks
        self._deciding = False  # whether the step is made; the other ranks wait to be told
        self._asking: Asking | None = None
        self._start: dict[str, Tensor] | None = None
        super().__init__(*given, **(named | {"device": str(ranks.device)}))
        self._start = None

    def weights(self) -> dict[str, Tensor]:
        """The fp32 masters by parameter name, whole, in main memory."""
        with self._telling("weights"):
            return self.optimizer.collected(self.optimizer.masters)

    def moments(self) -> Moments:
        """The optimizer's state, whole, in main memory."""
        with self._telling("moments"):
            return self.optimizer.whole_moments()

    def close(self) -> None:
        """Let the other ranks go."""
        with self._telling("end"):
            pass

    def differentiate(self, responses: Any) -> Any:
        """Errors: ValueError; a gradient is compared in one process."""
        raise ValueError(f"{self.recipe.name} has {self.ranks.count} workers, and a gradient is taken apart with one")

    def _built(self, config: PretrainedConfig, weights: dict[str, Tensor]) -> Any:
        self._config, self._start = config, weights
        self.ranks.told((self.recipe, self.seed, config))
        return sharded.build(self.recipe, config, weights, self.ranks)

    def _optimized(self, weights: dict[str, Tensor], bases: Bases | None) -> Masters:
        return sharded.ShardedMasters(self.model, weights, self.recipe, self.ranks)

    def _sampler(self) -> Any:
        whole = student.build(self.recipe, self._config, self._start).to(self.device)
        return whole.requires_grad_(False)

    def _push(self) -> None:
        if not self.syncing.due(self.step):
            return
        if not self.syncing.shared:
            with self._telling("served"):
                served = self.optimizer.collected(self.optimizer.served)
            self.syncing.push(served, self.step)
            return
        held = dict(self.engine.model.named_parameters())  # type: ignore[attr-defined]
        with self._telling("served"), torch.no_grad():
            self.optimizer.whole(self.optimizer.served, lambda name, tensor: held[name].copy_(tensor))
        self.syncing.push({}, self.step)

    def _scored(self, batch: Batch) -> Tensor:
        with self._telling("scored", batch.to(torch.device("cpu"))):
            return super()._scored(batch)

    def _state(self) -> dict[str, Tensor]:
        with self._telling("state"):
            return self.optimizer.whole_state()

    def _restore(self, tensors: dict[str, Tensor], steps: int) -> None:
        names = [f"master/{name}" for name in self.optimizer.shapes] + (self._named() if steps else [])
        sharded.require_whole(tensors, self.optimizer.shapes, names)
        with self._telling("restore", steps):
            self.optimizer.restore_whole(tensors, steps)

    def _adopt(self, moments: Moments) -> None:
        sharded.require_whole(moments.tensors, self.optimizer.shapes, self._named())
        with self._telling("adopt", moments.steps):
            self.optimizer.adopt_whole(moments)

    def _named(self) -> list[str]:
        return [f"{moment}/{name}" for moment in MOMENTS for name in self.optimizer.shapes]

    def _bind(self, step: int, batch: Batch, behind: Batch | None) -> Terms:
        vocabulary = self.teacher.vocabulary if self.teacher else 0
        told = Step(number=step, batch=batch, behind=None if behind is batch else behind, vocabulary=vocabulary)
        with self._telling("step", told, shared=ValueError):
            self._asking = asking(self.recipe, told, self.ranks, self.teacher)
            return bind(self.recipe, self.seed, told, self.ranks, self._asking, self.phase)

    def _backward(self, terms: Terms) -> dict[str, float]:
        with self._together():
            losses = super()._backward(terms)
            for rank, (theirs, measured) in enumerate(self.ranks.gathered((losses, None))):
                if rank:
                    terms.merge(measured)
                    losses = {name: loss + theirs[name] for name, loss in losses.items()}
        self._deciding = True
        return losses

    @contextmanager
    def _undone(self) -> Iterator[None]:
        try:
            with super()._undone():
                yield
        except BaseException:
            if self._deciding:
                self._deciding = False
                self.ranks.told(None)
            raise

    def _move(self, step: int, rate: float) -> dict[str, Any]:
        self._deciding, self._asking = False, None
        with self._together():
            self.ranks.told(rate)
            return super()._move(step, rate)

    @contextmanager
    def _telling(self, what: str, *given: Any, shared: type[Exception] | tuple[()] = ()) -> Iterator[None]:
        """Tell the other ranks, and do the same inside. shared: what then fails on all of them alike."""
        if self.broken:
            raise RuntimeError(f"{self.recipe.name}: a step failed on rank 0, and the other ranks follow no more")
        self._asking = None
        with self._together(shared):
            self.ranks.told((what, given))
            yield

    @contextmanager
    def _together(self, shared: type[Exception] | tuple[()] = ()) -> Iterator[None]:
        """What fails inside leaves the ranks apart, unless it is the teacher's, or of a `shared` kind."""
        try:
            yield
        except BaseException as error:
            known = self._asking is not None and self._asking.failed
            self.broken = not known and not isinstance(error, shared)
            raise
