"""Nulls of a trajectory: what its spectra and its locking would show without structure, at a step.

    shuffled          the step's update with its entries in one fixed random order: same magnitudes, no subspace
    fixed_direction   the final update rescaled to the step's norm and rounded to bf16 again: a trajectory that never
                      turns. In the bf16 view what it shows is storage; in the master view it is constant, and left out

Similarities compare a step with the final step of the same null. A new final step changes every row of fixed_direction,
and of shuffled the similarities alone, which come from subspaces that are kept (`compare`). Not measured: nulls for
rotation and drift.
Source: `nulls`; the mechanism is this project's own check of the trajectory claims of arXiv 2606.07082, section 4.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from opd_ops.geometry import scale, spectrum
from opd_ops.geometry.exact import SIDES
from opd_ops.geometry.locking import similarities
from opd_ops.geometry.nulls import fixed_direction, shuffle_entries
from opd_ops.geometry.update import Subspaces, Update
from opd_ops.linalg import stable_rank

SEED = 0  # of the one order in which every step of a matrix is shuffled
SHUFFLED, FIXED = "shuffled", "fixed_direction"
COLUMNS = ("stable_rank", *spectrum.RANKS, "hill_k", "hill", "similarity_k", "similarity_output", "similarity_input")


class Cuts(Protocol):
    @property
    def hill_k(self) -> tuple[int, ...]: ...
    @property
    def locking_k(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Null:
    """One null at one step. method: how the row was made. subspaces: leading, at the first of locking_k; None where
    there is no null, or no cut."""

    method: str
    row: dict
    subspaces: Subspaces | None = None


def shuffled_null(update: Tensor, view: str, cuts: Cuts, dense: bool) -> Null:
    """The shuffled null of update = W_t - W0 [out, in] of a view. dense: by float64 factors."""
    if scale.frobenius(update) == 0.0:
        return Null("equality", missing(SHUFFLED, None, view, "zero update"))
    return _measure_null(SHUFFLED, shuffle_entries(update, SEED), None, view, cuts, dense)


@dataclass(frozen=True)
class Direction:
    """The fixed direction of a trajectory, of its final step.

    start = W0 of the bf16 view, direction = the whole final update (of the widest view), both f32 or float64 [out, in];
    norm: Frobenius norm of the final update in the bf16 view. dense: nulls by float64 factors.
    """

    step: int
    start: Tensor
    direction: Tensor
    norm: float
    cuts: Cuts
    dense: bool

    @cached_property
    def last(self) -> Null:
        """The null of the final step, which the others are compared with."""
        return self._null(self.norm)

    def null(self, norm: float) -> Null:
        """The null of a step whose update in the bf16 view has Frobenius norm `norm`."""
        null = self.last if norm == self.norm else self._null(norm)
        return Null(
            null.method, add_similarities(null.row, null.subspaces, self.last.subspaces, self.step), null.subspaces
        )

    def _null(self, norm: float) -> Null:
        view = "bf16"
        if norm == 0.0 or scale.largest(self.direction) == 0.0:
            return Null("equality", missing(FIXED, self.step, view, "zero update"))
        entries = fixed_direction(self.start, self.direction, norm)
        if not math.isfinite(scale.largest(entries)):
            return Null("equality", missing(FIXED, self.step, view, "the null exceeds the largest bf16"))
        return _measure_null(FIXED, entries, self.step, view, self.cuts, self.dense)


def add_similarities(row: dict, here: Subspaces | None, last: Subspaces | None, final_step: int) -> dict:
    """The row with its similarities to the final step's subspaces, as far as both have them."""
    row = row | {"final_step": final_step}
    k = row["similarity_k"]
    if k is None or here is None or last is None or k not in last.cuts:
        return row
    if here.reasons[here.cuts.index(k)] or last.reasons[last.cuts.index(k)]:
        return row
    for side in SIDES:
        bases = torch.stack([each.side(side)[:, :k].double() for each in (here, last)])
        row[f"similarity_{side}"] = float(similarities(bases)[0, 1])
    return row


def null_names(view: str) -> tuple[str, ...]:
    """The nulls of a view."""
    return (FIXED, SHUFFLED) if view == "bf16" else (SHUFFLED,)


def missing(null: str, final_step: int | None, view: str, reason: str) -> dict:
    return _row(null, final_step, view, reason=reason)


def _measure_null(null: str, entries: Tensor, final_step: int | None, view: str, cuts: Cuts, dense: bool) -> Null:
    first = cuts.locking_k[:1]
    made = Update(entries, dense, *first)
    if made.zero:
        return Null("equality", missing(null, final_step, view, "the null rounds to a zero update"))
    hill_k = spectrum.hill_cuts(cuts.hill_k, len(made.spectrum.values))
    ranks: dict[str, Any] = spectrum.ranks(made.spectrum)
    row = _row(
        null,
        final_step,
        view,
        stable_rank=stable_rank(made.frobenius, made.norm[0]),
        **ranks,
        hill_k=list(hill_k),
        hill=[spectrum.hill(made.spectrum, k)[0] for k in hill_k],
        similarity_k=first[0] if first else None,
    )
    return Null(made.spectrum.method, row, made.subspaces(first) if first else None)


def _row(null: str, final_step: int | None, view: str, reason: str | None = None, **values: Any) -> dict:
    return {"view": view, "null": null, "final_step": final_step, **dict.fromkeys(COLUMNS), **values, "reason": reason}
