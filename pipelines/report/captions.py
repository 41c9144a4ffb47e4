"""What each figure means, how it is computed and what to be careful about, and the item of the paper it belongs to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.report import choices, figures
from pipelines.report.choices import Choice
from pipelines.statistics import beside
from pipelines.statistics.beside import Beside


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the page."""

    key: str  # anchor on the page
    item: str  # key of the paper's table or figure that shows the same quantity
    title: str
    needs: tuple[str, ...]  # tables
    null: Callable[..., Beside] | None = None  # the series beside its null, from `needs` and the table nulls
    told: tuple[int, int] = (5, 100)  # shares of the run (%) at which the null is told in words
    draw: Callable[..., figures.Chart]
    alt: str  # what the picture shows, for readers who do not see it
    meaning: str
    how: str
    caveat: str
    choice: Choice | None = None  # what a reader can choose of it

    def takes(self, tables: Mapping[str, pl.LazyFrame]) -> list[pl.LazyFrame]:
        """What `draw` (and `null`, if there is one) is called with; the nulls may be absent."""
        taken = [tables[name] for name in self.needs]
        if self.null is not None:
            taken.append(tables.get("nulls", pl.LazyFrame(schema=TABLES["nulls"].schema)))
        return taken


SPREAD = "Mean over the decoder's projection matrices, then over seeds; bands run from the lowest to the highest seed."
COUNTED = SPREAD.replace("decoder's projection matrices", "decoder's projection weights")
ROUNDED = (
    "The bf16 view contains the rounding of the export, which weighs most while the update is small: it raises stable "
    "rank and Hill and lowers Sim_16 early on. Where bf16 and master disagree, the difference is storage, not training."
)
UNMATCHED = "Arms differ in steps and in how far they move; progress is a share of each arm's own run."

FIGURES = (
    Figure(
        key="unchanged",
        item="table1",
        title="Weights that stay as they were",
        needs=("update_support",),
        draw=figures.unchanged,
        alt="Share of unchanged projection weights against training progress, one line per arm, bf16 and master.",
        meaning="How sparse the update looks where it is stored: the share of weights that are bitwise those of the "
        "start.",
        how=f"Weights equal to W0, over all projection weights. {COUNTED} The paper's ends, in bf16: SFT 8.1, OPD "
        "51.6, RLVR 77.2 %.",
        choice=choices.UNCHANGED,
        caveat="In bf16 a weight stays until it has moved by half a step of its grid, so the share says how small the "
        "steps are. Masters nearly all move.",
    ),
    Figure(
        key="roles",
        item="table1",
        title="By role of the matrix",
        needs=("update_support", "rotation"),
        draw=figures.roles,
        alt="Bars by role of the matrix: share of unchanged weights, and mean rotation in degrees, one colour per arm.",
        meaning="Whether attention and MLP matrices tell the same story.",
        how="Final step, bf16 view. Left: weights bitwise equal to W0, weighted by parameter count. Right: mean "
        "principal angle, input side. Whiskers run from the lowest to the highest seed.",
        caveat="Matrices of different shapes have different ceilings; compare arms within a role.",
    ),
    Figure(
        key="angles",
        item="figure2",
        title="Rotation of the leading subspace",
        needs=("rotation",),
        draw=figures.angle_profiles,
        alt="Principal angles in degrees against their index on a log axis at the final step, one line per arm.",
        meaning="How far training has turned the weights' own leading input directions.",
        how=f"Principal angles between the top-k right singular subspaces of W0 and the final weights, ascending. "
        f"{SPREAD} The paper shows one layer at k = 512: SFT above 10, OPD about 1, RLVR below 0.5 degrees.",
        choice=choices.ANGLES,
        caveat="The last angles depend on the gap at the cut, and a small gap turns easily. k is not the paper's.",
    ),
    Figure(
        key="drift",
        item="figure2",
        title="Drift of the singular values",
        needs=("spectral_drift",),
        draw=figures.drift,
        alt="Normalised spectral shift against training progress on a log axis, one line per arm, both views.",
        meaning="How much training has changed the spectrum of the weights themselves, apart from any rotation.",
        how=f"NSS = ||sigma(W_t) - sigma(W0)||_2 / ||sigma(W0)||_2, sorted spectra. {SPREAD} The paper reads about "
        "3e-3 (SFT), 1e-4 to 2e-4 (OPD) and 1e-5 to 2e-5 (RLVR), per matrix.",
        choice=choices.DRIFT,
        caveat="NSS is at most the relative norm of the update (Mirsky): an arm that moves further can drift further.",
    ),
    Figure(
        key="overlap",
        item="figure3",
        title="Where the changed weights are, over training",
        needs=("localization",),
        draw=figures.overlap,
        alt="Share of the changed weights inside the low-magnitude mask against training progress, one line per arm.",
        meaning="Whether the weights that change are the small ones of the start, more often than chance (dotted).",
        how=f"|mask and changed| / |changed|; the mask holds the half of W0 that is smallest in magnitude. {SPREAD} "
        "The paper's ends, with a mask of 30 %: SFT 31.9, OPD 53.6, RLVR 73.5 %.",
        choice=choices.OVERLAP,
        caveat="bf16's grid is finer at small weights, so a small weight shows changes that a large one hides: that "
        "alone favours this mask.",
    ),
    Figure(
        key="stable-rank",
        item="figure4",
        title="Stable rank of the update",
        needs=("update_norm",),
        null=beside.stable_rank,
        draw=figures.stable_rank,
        alt="Stable rank of the update against training progress, one line per arm, bf16 and master side by side.",
        meaning="Whether an update spreads over more directions as training goes on, or concentrates on fewer.",
        how=f"||dW||_F^2 / ||dW||_2^2 of dW = W_t - W0. {SPREAD} The paper averages attention matrices only and reads "
        "SFT up to about 75, OPD in a band of about 18 to 28, RLVR down to OPD's level (axis ticks).",
        choice=choices.STABLE_RANK,
        caveat=ROUNDED,
    ),
    Figure(
        key="norm",
        item="figure4",
        title="Size of the update",
        needs=("update_norm",),
        draw=figures.frobenius_norm,
        alt="Frobenius norm of the update against training progress on a log axis, one line per arm, both views.",
        meaning="How far the weights have moved from their start.",
        how=f"||W_t - W0||_F. {SPREAD} The paper's ends, from its LaTeX source: SFT 4.701, OPD 0.452, RLVR 0.168.",
        choice=choices.NORM,
        caveat=UNMATCHED + " Norms grow with the matrices, so compare orders and not levels with an 8B model.",
    ),
    Figure(
        key="hill",
        item="figure4",
        title="Tail of the update's spectrum",
        needs=("hill",),
        null=beside.hill,
        draw=figures.hill,
        alt="Hill tail index of the update's singular values against training progress, one line per arm, both views.",
        meaning="A small index is a heavy tail: a few singular values stand out from the rest.",
        how=f"[mean over i < k of log(sigma_i / sigma_k)]^-1 at the smallest k that all matrices share. {SPREAD} The "
        "paper gives OPD 2.34 to 2.93 (LaTeX source) without its k.",
        choice=choices.HILL,
        caveat="The index depends strongly on k, so levels are not comparable with the paper's. " + ROUNDED,
    ),
    Figure(
        key="locking",
        item="figure5",
        title="When the update's subspace settles",
        needs=("locking",),
        null=beside.locking,
        told=(10, 25),
        draw=figures.locking,
        alt="Sim_16 between the update now and at the end against training progress, one line per arm, both views.",
        meaning="How much of the final update's leading input subspace is already there.",
        how="Sim_16 = ||V_16(t)' V_16(end)||_F^2 / 16 with V_16 the top right singular vectors of dW. The dotted rule "
        f"is the mean chance level 16/n. {SPREAD} The paper shows OPD high from its first checkpoint, at most 21 % in.",
        choice=choices.LOCKING,
        caveat=ROUNDED,
    ),
)
