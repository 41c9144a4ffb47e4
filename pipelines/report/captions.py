"""The figures of every study: meaning, method and caveat of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from pipelines.report import choices, figures
from pipelines.report.choices import Quantity, Tables
from pipelines.statistics import null_values
from pipelines.statistics.null_values import SeriesWithNull
from pipelines.statistics.samples import arm_rows
from pipelines.studies.story import Story

Draw = Callable[[Story, Tables, Sequence[str]], Any]
Numbers = Callable[[Story, Tables, Sequence[str]], dict[str, pl.DataFrame]]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the page. `draw` and `numbers` take a story, tables (every one present) and keys of arms."""

    key: str  # anchor on the page
    title: str
    needs: tuple[str, ...]  # tables
    draw: Draw
    numbers: Numbers  # by title of an axis: columns arm (label), view, place, value, low, high
    null: Callable[..., SeriesWithNull] | None = (
        None  # the series beside its null, from `needs`, the table nulls and arms
    )
    shares: tuple[int, int] = (5, 100)  # of the run (%), at which the null is put in words
    alt: str  # what the picture shows, for readers who do not see it
    meaning: str  # one line
    how: str
    caveat: str

    def is_measured(self, tables: Tables, arms: Sequence[str]) -> bool:
        """Whether every table has rows of `arms`."""
        return not any(arm_rows(tables, name, arms).head(1).collect().is_empty() for name in self.needs)

    def null_sentence(self, story: Story, tables: Tables, arms: Sequence[str]) -> str | None:
        """Describe the null and the measured values; None without a null."""
        if self.null is None:
            return None
        return null_values.describe_null(
            self.null(*(tables[name] for name in self.needs), tables["nulls"], arms), story, *self.shares
        )


def _over_training(quantity: Quantity, **words: Any) -> Figure:
    """A figure of lines with the tables and drawing of `quantity`."""
    return Figure(
        needs=(quantity.table,),
        draw=partial(figures.draw_lines, quantity),
        numbers=partial(figures.line_numbers, quantity),
        **words,
    )


SPREAD = "Mean over the decoder's projection matrices, then over seeds; bands run from the lowest to the highest seed."
COUNTED = SPREAD.replace("decoder's projection matrices", "decoder's projection weights")
ROUNDED = (
    "The bf16 view contains the rounding of the export, which weighs most while the update is small: it raises stable "
    "rank and Hill and lowers Sim_16 early on. Where bf16 and master disagree, the difference is storage, not training."
)
THIN = "Thin dashed in bf16: the null, one line per arm, where it was kept."

FIGURES = (
    _over_training(
        choices.UNCHANGED,
        key="unchanged",
        title="Unchanged weights",
        alt="Share of unchanged projection weights against training progress, one line per arm, bf16 and master.",
        meaning="How sparse the stored update is: the share of weights bitwise equal to the start.",
        how=f"Weights equal to W0, over all projection weights. {COUNTED}",
        caveat="In bf16 a weight changes only after it has moved by half a grid step, so the share measures how small "
        "the moves are. Nearly all masters move.",
    ),
    Figure(
        key="roles",
        title="By role of the matrix",
        needs=("update_support", "rotation"),
        draw=figures.draw_roles,
        numbers=figures.role_numbers,
        alt="Bars by role of the matrix: share of unchanged weights, and mean rotation in degrees, one colour per arm.",
        meaning="Whether attention and MLP matrices agree.",
        how="Final step, bf16 view. Unchanged: weights bitwise equal to W0, weighted by parameter count. Rotation: "
        "mean principal angle, input side. Whiskers run from the lowest to the highest seed.",
        caveat="Matrices of different shapes have different ceilings; compare arms within a role.",
    ),
    _over_training(
        choices.ANGLES,
        key="angles",
        title="Rotation of the leading subspace",
        alt="Principal angles in degrees against their index on a log axis at the final step, one line per arm.",
        meaning="How far training has rotated the leading input directions of the weights.",
        how=f"Principal angles between the top-k right singular subspaces of W0 and the final weights, ascending. "
        f"{SPREAD}",
        caveat="The last angles depend on the spectral gap at the cut: a small gap rotates easily.",
    ),
    _over_training(
        choices.DRIFT,
        key="drift",
        title="Drift of the singular values",
        alt="Normalised spectral shift against training progress on a log axis, one line per arm, both views.",
        meaning="How much training has changed the spectrum of the weights themselves, apart from any rotation.",
        how=f"NSS = ||sigma(W_t) - sigma(W0)||_2 / ||sigma(W0)||_2, sorted spectra. {SPREAD}",
        caveat="NSS is at most the relative norm of the update (Mirsky): an arm that moves further can drift further.",
    ),
    _over_training(
        choices.OVERLAP,
        key="overlap",
        title="Where the changed weights are, over training",
        alt="Share of the changed weights inside the low-magnitude mask against training progress, one line per arm.",
        meaning="Whether the weights that change are the small ones of the start, more often than chance (dotted).",
        how=f"|mask and changed| / |changed|; the mask holds the half of W0 that is smallest in magnitude. {SPREAD}",
        caveat="The bf16 grid is finer at small weights, so a small weight shows changes that a large one hides. This "
        "favours the mask.",
    ),
    _over_training(
        choices.STABLE_RANK,
        key="stable-rank",
        title="Stable rank of the update",
        null=null_values.stable_rank,
        alt=f"Stable rank of the update against training progress, one line per arm, bf16 and master. {THIN}",
        meaning="Whether an update spreads over more directions as training goes on, or concentrates on fewer.",
        how=f"||dW||_F^2 / ||dW||_2^2 of dW = W_t - W0. {SPREAD}",
        caveat=ROUNDED,
    ),
    _over_training(
        choices.NORM,
        key="norm",
        title="Size of the update",
        alt="Frobenius norm of the update against training progress on a log axis, one line per arm, both views.",
        meaning="How far the weights have moved from their start.",
        how=f"||W_t - W0||_F. {SPREAD}",
        caveat="Arms differ in steps and in how far they move; progress is a share of each arm's own run. Norms grow "
        "with the matrices: compare orders and not levels with models of another size.",
    ),
    _over_training(
        choices.HILL,
        key="hill",
        title="Tail of the update's spectrum",
        null=null_values.hill_beside_null,
        alt="Hill tail index of the update's singular values against training progress, one line per arm, both views. "
        f"{THIN}",
        meaning="A small index is a heavy tail: a few singular values stand out from the rest.",
        how=f"[mean over i < k of log(sigma_i / sigma_k)]^-1 at the smallest k that all matrices share. {SPREAD}",
        caveat="The index depends strongly on k: levels at another k, or of other shapes, are not comparable. "
        + ROUNDED,
    ),
    _over_training(
        choices.LOCKING,
        key="locking",
        title="When the update's subspace settles",
        null=null_values.locking_beside_null,
        shares=(10, 25),
        alt="Sim_16 between the update now and at the end against training progress, one line per arm, both views. "
        f"{THIN}",
        meaning="How much of the final update's leading input subspace exists already.",
        how="Sim_16 = ||V_16(t)' V_16(end)||_F^2 / 16 with V_16 the top right singular vectors of dW. The dotted rule "
        f"is the mean chance level 16/n. {SPREAD}",
        caveat=ROUNDED,
    ),
)
