"""The contract of a loss: one objective's share of a step's loss, bound to the whole step's batch.

    loss = sum over parts of coefficient * sum_{b,t} weight[b, t] per_token[b, t]

The weights hold the mask and one global denominator of the step. A micro-batch of rows begin..end gives its rows'
share, so the shares of a step add up to its loss, however the step is split over micro-batches and processes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from opd_ops.batch import Batch
from opd_ops.objectives.mismatch import Mismatch
from opd_ops.objectives.positions import Positions
from opd_ops.recipe import Recipe
from opd_ops.teacher.scores import Scorer

Phase = Callable[[str], AbstractContextManager]  # times what happens inside it, by name


@dataclass(frozen=True, kw_only=True)
class StepInputs:
    """What a step's losses are made from.

    batch: of the whole step. teacher_batch: the same responses behind the prompts that the teacher reads. draws:
    [B, >= R] uniforms for random token selection. spans: the micro-batches of this process, as rows begin..end.
    all_reduce: adds numbers up over all processes of the step. phase: times the teacher.
    """

    recipe: Recipe
    batch: Batch
    teacher_batch: Batch | None = None
    teacher: Scorer | None = None
    draws: Tensor | None = None
    spans: list[tuple[int, int]] = field(default_factory=list)
    phase: Phase = lambda name: nullcontext()
    all_reduce: Callable[[list[float]], list[float]] = lambda values: values


class Loss:
    """The loss of `spec` on one step.

    positions, mismatch: collect its measurements; None where another part of the objective measures the same tokens.
    name: prefix of its columns in the training table. zero_variance: share of the groups whose advantages are all 0;
    None for a loss without groups.
    """

    name: str
    zero_variance: float | None = None

    @staticmethod
    def select_rows(spec: Any, batch: Batch) -> Batch:
        """The batch with a mask of 0 on the sequences that this objective leaves out."""
        return batch

    def __init__(self, spec: Any, step: StepInputs, positions: Positions | None, mismatch: Mismatch | None) -> None:
        self.spec, self.step, self.batch, self.positions, self.mismatch = spec, step, step.batch, positions, mismatch

    def loss(self, logits: Tensor, begin: int, end: int) -> Tensor:
        """The share of rows begin..end, a scalar with gradient, from the student's logits [B, R, V]."""
        raise NotImplementedError

    def rms(self) -> float:
        """Root mean square of the per-token advantage over the step, by which a mix may divide the loss."""
        raise NotImplementedError

    def summary(self) -> dict[str, float | None]:
        """What it adds to the step's row of the training table, besides its positions."""
        return {}

    def measurements(self) -> Any:
        """What `summary` is made of on this process' rows, on the CPU, for `merge`."""
        return None

    def merge(self, measurements: Any) -> None:
        """Add another process' `measurements` of other rows of the batch."""


@torch.no_grad()
def root_mean_square(values: Tensor, mask: Tensor) -> float:
    """Of values [B, R] over the tokens under the mask, in float64; 0 where there are none."""
    selected = values[mask > 0].double()
    return float(selected.square().mean().sqrt()) if len(selected) else 0.0
