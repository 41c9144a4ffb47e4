"""Figure 2: rotation and singular values, of one matrix and over all of them."""

import polars as pl

from pipelines.paper.curves import RUNS
from pipelines.paper.item import Item, draw_nothing
from pipelines.paper.published import ANGLE, FIGURE2, LARGEST_ANGLE, NSS, find_published
from pipelines.paper.spread import over_seeds, spread_numbers
from pipelines.statistics import matrices
from pipelines.store.objects import Store
from pipelines.studies.story import Drawing, Tables

SHIFT = "shift of a singular value"


def measure_figure(tables: Tables) -> dict[str, pl.DataFrame]:
    """By column of the figure: arm, side (of angles), index, value, low, high, seeds; in bf16 at the last step.

    Angles and drift as on their log axes: means and intervals of logarithms.
    """
    matrix = pl.col("matrix") == pl.lit(matrices.representative_matrix(tables, RUNS), pl.String())
    turned, shifted = matrices.final_rows(tables, "rotation", RUNS), matrices.final_rows(tables, "singular_shift", RUNS)
    drifted = matrices.final_rows(tables, "spectral_drift", RUNS)
    runs = {
        ANGLE: _explode_angles(turned.filter(matrix), "angles_deg", "side"),
        SHIFT: _explode_angles(shifted.filter(matrix), "shifts"),
        LARGEST_ANGLE: matrices.order_matrices(turned).select("arm", "seed", "side", index="place", value="max_deg"),
        NSS: matrices.order_matrices(drifted).select("arm", "seed", index="place", value="nss"),
    }
    collected = dict(zip(runs, pl.collect_all(list(runs.values())), strict=True))
    return {
        name: over_seeds(rows, *[key for key in ("side", "index") if key in rows.columns], log=name != SHIFT)
        for name, rows in collected.items()
    }


def _explode_angles(rows: pl.LazyFrame, column: str, *keys: str) -> pl.LazyFrame:
    """Lists by index from 1."""
    rows = rows.filter(pl.col(column).list.len() > 0)
    index = pl.int_ranges(1, pl.col(column).list.len() + 1)
    return rows.select("arm", "seed", *keys, index=index, value=pl.col(column)).explode("index", "value")


def draw(tables: Tables, store: Store | None = None) -> Drawing:
    parts = measure_figure(tables)
    if all(rows.is_empty() for rows in parts.values()):
        return draw_nothing("No run of the suite core is measured.")
    from pipelines.paper import mosaic

    arms = [arm for arm in RUNS if any(arm in set(rows["arm"]) for rows in parts.values())]
    columns = [
        mosaic.Column(
            parts[ANGLE],
            "angles of one matrix (deg)",
            "index of the angle",
            reported=find_published(FIGURE2, ANGLE),
            log=True,
            sides=True,
        ),
        mosaic.Column(parts[SHIFT], "shift (weight units)", "index of the value", reported=[]),
        mosaic.Column(
            parts[LARGEST_ANGLE],
            "largest angle (deg)",
            "matrix",
            reported=find_published(FIGURE2, LARGEST_ANGLE),
            log=True,
            sides=True,
        ),
        mosaic.Column(parts[NSS], "NSS (no unit)", "matrix", reported=find_published(FIGURE2, NSS), log=True),
    ]
    return Drawing(chart=mosaic.draw_mosaic(columns, arms), numbers=_numbers(parts))


def _numbers(rows: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Largest angle of the one matrix, largest angle of any, and the mean drift: the seeds' means of what is drawn."""
    inner = pl.col("side") == "input"
    last = rows[ANGLE].filter(inner).filter(pl.col("value") == pl.col("value").max().over("arm"))
    most = rows[LARGEST_ANGLE].filter(inner).filter(pl.col("value") == pl.col("value").max().over("arm"))
    drift = rows[NSS].filter(pl.col("value") == pl.col("value").max().over("arm"))
    parts = (
        (last, "largest angle of one matrix, input side", "deg", ANGLE),
        (most, "largest angle of the matrix that turned most, input side", "deg", LARGEST_ANGLE),
        (drift, "NSS of the matrix that drifted most", "", NSS),
    )
    return pl.concat(
        [spread_numbers(part, words, unit, find_published(FIGURE2, quantity)) for part, words, unit, quantity in parts]
    )


ITEM = Item(
    key="figure2",
    title="Figure 2: rotation and singular values after training",
    needs=("update_support", "rotation", "singular_shift", "spectral_drift"),
    shows="For each run, from left to right: the principal angles between the leading singular subspaces of start and "
    "end in one matrix (the second block's output projection), how far its leading singular values moved, and over all "
    "matrices the largest angle and the normalised drift of the spectrum; dashed, the paper's level or range.",
    not_shown="The singular values themselves, which the paper overlays (3.5 to 6 over its leading 512): the tables "
    "keep how far each moved. Our k is smaller than its 512, and the last angle depends on the gap at that cut. "
    "Matrices run by layer and then by role (q k v o gate up down); the paper does not state its order.",
    published=FIGURE2,
    draw=draw,
)
