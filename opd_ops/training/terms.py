"""A step's loss: those of the objective's parts, their coefficients, and what is measured beside them.

A micro-batch gives its rows' share of every part (`opd_ops.objectives.loss`); the coefficients multiply the parts'
gradients once the loop has added each up.
"""

from dataclasses import replace
from typing import Any

from opd_ops.objectives.loss import Loss, StepInputs
from opd_ops.objectives.losses import loss_of
from opd_ops.objectives.mismatch import Mismatch
from opd_ops.objectives.positions import Positions


class Terms:
    """The objective of a recipe bound to one step. Without spans, this process takes all micro-batches of the batch.

    zero_variance: share of the step's groups without any advantage; None where no part has groups.
    """

    def __init__(self, step: StepInputs) -> None:
        recipe, parts = step.recipe, step.recipe.objective.parts
        batch = step.batch
        for part in parts:
            batch = loss_of(part).select_rows(part, batch)
        spans = step.spans or micro_batches(0, len(batch.ids), recipe.precision.micro_batch)
        step = replace(step, batch=batch, spans=spans)
        self.batch, self.spans, self.positions, self.mismatch = batch, spans, Positions(batch.width), Mismatch()
        # The first part measures; the others see the same tokens.
        self.terms: list[Loss] = [
            loss_of(part)(part, step, *((None, None) if index else (self.positions, self.mismatch)))
            for index, part in enumerate(parts)
        ]
        names = [term.name for term in self.terms]
        self.rms = {term.name: term.rms() for term in self.terms} if len(parts) > 1 else {}
        self.coefficients = dict(zip(names, recipe.objective.coefficients([*self.rms.values()]), strict=True))
        shares = [term.zero_variance for term in self.terms if term.zero_variance is not None]
        self.zero_variance = shares[0] if shares else None

    def summary(self) -> dict[str, float | None]:
        """The step's measurements, for the training table."""
        columns: dict[str, float | None] = {"flat_groups": None, "sequences": int(self.batch.mask.any(1).sum())}
        columns |= self.positions.means() | self.mismatch.summary()
        for term in self.terms:
            columns |= term.summary()
        return columns | {f"{name}_rms": value for name, value in self.rms.items()}

    def measurements(self) -> tuple[Any, ...]:
        """What this process measured on its rows, for `merge`."""
        terms = [term.measurements() for term in self.terms]
        return self.positions.measurements(), self.mismatch.measurements(), terms

    def merge(self, measurements: tuple[Any, ...]) -> None:
        """Add what another process measured on other rows of the batch."""
        positions, mismatch, terms = measurements
        self.positions.merge(positions)
        self.mismatch.merge(mismatch)
        for term, theirs in zip(self.terms, terms, strict=True):
            term.merge(theirs)


def micro_batches(begin: int, end: int, size: int) -> list[tuple[int, int]]:
    """Rows begin..end in spans of at most `size`."""
    return [(first, min(first + size, end)) for first in range(begin, end, size)]
