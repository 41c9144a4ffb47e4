"""Nulls of a trajectory: what its spectra and its locking would show without structure, step by step.

    fixed_direction   the final update rescaled to each step's norm and rounded to bf16 again: a trajectory that never
                      turns. In the bf16 view what it shows is storage; in the master view it is constant, and left out
    shuffled          the step's update with its entries in one fixed random order: same magnitudes, no subspace

Similarities compare a step with the final step of the same null. Not measured: nulls for rotation and drift.
Source: `nulls`; the mechanism is this project's own check of the trajectory claims of arXiv 2606.07082, section 4.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from opd_ops.geometry import scale, spectrum
from opd_ops.geometry.exact import SIDES
from opd_ops.geometry.locking import similarities
from opd_ops.geometry.nulls import fixed_direction, shuffled
from opd_ops.geometry.update import Subspaces, Update

SEED = 0  # of the one order in which every step of a matrix is shuffled
COLUMNS = ("stable_rank", *spectrum.RANKS, "hill_k", "hill", "similarity_k", "similarity_output", "similarity_input")


class Cuts(Protocol):
    @property
    def hill_k(self) -> tuple[int, ...]: ...
    @property
    def locking_k(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Reference:
    """final: the trajectory's last weight. start = W0 of the view, direction = its whole update (of the widest view),
    update = its update in this view, all [out, in]."""

    final: Tensor
    start: Tensor
    direction: Tensor
    update: Tensor
    settings: Cuts
    dense: bool

    @cached_property
    def _last(self) -> dict[str, Subspaces]:
        """Leading subspaces of each null at the final step."""
        cuts = self.settings.locking_k[:1]
        order = shuffled(self.update, SEED)
        return {
            "fixed_direction": Update(self.update, self.dense, *cuts).subspaces(cuts),
            "shuffled": Update(order, self.dense, *cuts).subspaces(cuts),
        }

    def rows(self, update: Tensor, final_step: int, view: str) -> list[tuple[str, dict]]:
        """(method, row) of each null at one step; update [out, in] is W_t - W0 of the view."""
        norm, found = scale.frobenius(update), []
        for null in names(view):
            if norm == 0.0 or scale.largest(self.direction) == 0.0:
                found.append(("equality", _row(null, final_step, view, reason="zero update")))
                continue
            if null == "shuffled":
                entries = shuffled(update, SEED)
            else:
                entries = fixed_direction(self.start, self.direction, norm)
            if not math.isfinite(scale.largest(entries)):
                found.append(("equality", _row(null, final_step, view, reason="the null exceeds the largest bf16")))
                continue
            made = Update(entries, self.dense, *self.settings.locking_k[:1])
            if made.zero:
                found.append(("equality", _row(null, final_step, view, reason="the null rounds to a zero update")))
                continue
            cuts = spectrum.hill_cuts(self.settings.hill_k, len(made.spectrum.values))
            values = {
                "stable_rank": (made.frobenius / made.norm[0]) ** 2,
                **spectrum.ranks(made.spectrum),
                "hill_k": list(cuts),
                "hill": [spectrum.hill(made.spectrum, k)[0] for k in cuts],
                **self._similarity(made, null),
            }
            found.append((made.spectrum.method, _row(null, final_step, view, **values)))
        return found

    def _similarity(self, made: Update, null: str) -> dict:
        cuts = self.settings.locking_k[:1]
        if not cuts:
            return {}
        here, there = made.subspaces(cuts), self._last[null]
        if here.reasons[0] or there.reasons[0]:
            return {"similarity_k": cuts[0]}
        both = {side: torch.stack([one.side(side)[:, : cuts[0]].double() for one in (here, there)]) for side in SIDES}
        values = {f"similarity_{side}": float(similarities(bases)[0, 1]) for side, bases in both.items()}
        return {"similarity_k": cuts[0], **values}


def names(view: str) -> tuple[str, ...]:
    """The nulls of a view."""
    return ("fixed_direction", "shuffled") if view == "bf16" else ("shuffled",)


def missing(final_step: int, view: str, reason: str) -> list[dict]:
    return [_row(null, final_step, view, reason=reason) for null in names(view)]


def _row(null: str, final_step: int, view: str, reason: str | None = None, **values) -> dict:
    return {"view": view, "null": null, "final_step": final_step, **dict.fromkeys(COLUMNS), **values, "reason": reason}
