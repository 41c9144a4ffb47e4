"""The terms of a step's loss, with everything bound that spans the whole step.

loss = sum over terms of coefficient * sum_{b,t} weight[b, t] per_token[b, t]: the weights hold the mask and one global
denominator per term. A micro-batch gives its rows' share of every term; the coefficients of a mix multiply the terms'
gradients once the loop has them apart.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from opd_ops.batch import Batch
from opd_ops.objectives import mix
from opd_ops.objectives.objective import weights
from opd_ops.recipe import Mix, Recipe, opd_of, rlvr_of
from opd_ops.teacher.scores import Scorer
from opd_ops.training.distilling import Distilling
from opd_ops.training.drawing import Phase
from opd_ops.training.mismatch import Mismatch
from opd_ops.training.positions import Positions
from opd_ops.training.reinforcing import Reinforcing, left


class Term(Protocol):
    """One term of the loss, bound to a step's batch."""

    name: str

    def loss(self, logits: Tensor, begin: int, end: int) -> Tensor:
        """The share of rows begin..end, a scalar with gradient, from the student's logits [B, R, V]."""
        ...

    def summary(self) -> dict[str, float | None]:
        """What the term adds to the step's row of the training table."""
        ...

    def measured(self) -> Any:
        """What `summary` is made of."""
        ...

    def merge(self, found: Any) -> None:
        """Add what another rank's term `measured` on other rows of the batch."""
        ...


class Imitating:
    """The SFT term."""

    name = "sft"

    def __init__(self, recipe: Recipe, batch: Batch, positions: Positions) -> None:
        self.batch, self.positions = batch, positions
        self.weight = weights(batch.mask, "token", recipe.rollout.max_new_tokens)

    def loss(self, logits: Tensor, begin: int, end: int) -> Tensor:
        part = self.batch.rows(begin, end)
        log_s = torch.log_softmax(logits.float(), -1)
        with torch.no_grad():
            self.positions.add(part.mask, entropy=-(log_s.exp() * log_s).sum(-1))
        chosen = log_s.gather(-1, part.targets.unsqueeze(-1)).squeeze(-1)
        return -(chosen * self.weight[begin:end]).sum()

    def summary(self) -> dict[str, float | None]:
        return {}

    def measured(self) -> None:
        """Nothing."""

    def merge(self, found: None) -> None:
        """Nothing."""


class Terms:
    """The objective of `recipe` bound to one step: its terms, their coefficients, its micro-batches.

    behind: the batch as the teacher reads it. draws: [B, >= R] uniforms for random token selection. spans: the
    micro-batches of this process, where it has a part of the batch; total: adds numbers up over all that have one.
    """

    def __init__(
        self,
        recipe: Recipe,
        batch: Batch,
        behind: Batch | None = None,
        teacher: Scorer | None = None,
        draws: Tensor | None = None,
        phase: Phase = lambda name: nullcontext(),
        *,
        spans: list[tuple[int, int]] | None = None,
        total: Callable[[list[float]], list[float]] = lambda values: values,
    ) -> None:
        opd, rlvr = opd_of(recipe.objective), rlvr_of(recipe.objective)
        self.flat: float | None = None
        if rlvr:
            batch, self.flat = left(rlvr, batch)
        self.batch, self.positions, self.mismatch = batch, Positions(batch.width), Mismatch()
        self.spans = micro_batches(0, len(batch.ids), recipe.precision.micro_batch) if spans is None else spans
        mixed: list[Distilling | Reinforcing] = []
        if opd:
            assert behind is not None and teacher is not None and draws is not None
            mixed.append(
                Distilling(
                    recipe, batch, behind, teacher, draws, self.positions, self.mismatch, self.spans, phase, total
                )
            )
        if rlvr:
            mixed.append(Reinforcing(recipe, batch, None if opd else self.positions, self.mismatch))
        self.terms: list[Term] = [*mixed] or [Imitating(recipe, batch, self.positions)]
        self.coefficients = {term.name: 1.0 for term in self.terms}
        self.rms: dict[str, float] = {}
        if isinstance(recipe.objective, Mix):
            self.rms = {term.name: term.rms() for term in mixed}
            pair = mix.coefficients(recipe.objective.alpha, recipe.objective.scale, *self.rms.values())
            self.coefficients = dict(zip(self.rms, pair, strict=True))

    def summary(self) -> dict[str, float | None]:
        """The step's measurements, for the training table."""
        found: dict[str, float | None] = self.positions.means() | self.mismatch.summary()
        for term in self.terms:
            found |= term.summary()
        found |= {f"{name}_rms": value for name, value in self.rms.items()}
        return found | {"flat_groups": self.flat, "sequences": int(self.batch.mask.any(1).sum())}

    def measured(self) -> tuple[Any, ...]:
        """What this process measured on its rows, for `merge`."""
        return self.positions.measured(), self.mismatch.measured(), [term.measured() for term in self.terms]

    def merge(self, found: tuple[Any, ...]) -> None:
        """Add what another rank `measured` on other rows of the batch."""
        positions, mismatch, terms = found
        self.positions.merge(positions)
        self.mismatch.merge(mismatch)
        for term, theirs in zip(self.terms, terms, strict=True):
            term.merge(theirs)


def micro_batches(begin: int, end: int, size: int) -> list[tuple[int, int]]:
    """Rows begin..end in spans of at most `size`."""
    return [(first, min(first + size, end)) for first in range(begin, end, size)]
