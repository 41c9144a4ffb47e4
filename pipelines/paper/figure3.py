"""Figure 3: which weights change, against two masks of the start."""

import polars as pl

from pipelines.paper.curves import RUNS
from pipelines.paper.item import Item, draw_nothing
from pipelines.paper.published import DENSITY, FIGURE3, LOW_MAGNITUDE, PRINCIPAL, find_published
from pipelines.paper.spread import over_seeds, spread_numbers
from pipelines.report import blocks
from pipelines.statistics import matrices
from pipelines.statistics.samples import weighted_mean
from pipelines.store.objects import Store
from pipelines.studies.story import Drawing, Tables

ALPHA = 0.3  # the only weight of the masks that the paper's numbers allow
SEED = 0  # of the maps
OVERLAPS = {PRINCIPAL: "principal", LOW_MAGNITUDE: "low_magnitude"}


def nearest_weight(tables: Tables) -> float | None:
    """Of the masks that were measured, the weight nearest to the paper's."""
    alphas = tables["localization"].select(pl.col("alpha").unique()).collect()["alpha"].drop_nulls().to_list()
    return min(alphas, key=lambda alpha: abs(alpha - ALPHA), default=None)


def measure_figure(tables: Tables, alpha: float) -> dict[str, pl.DataFrame]:
    """By quantity, in %: arm, value, low, high, seeds: the unweighted mean over matrices, in bf16 at the last step."""
    rows = matrices.final_rows(tables, "localization", RUNS).filter(pl.col("alpha") == alpha)
    columns = {DENSITY: (rows.filter(pl.col("mask") == "principal"), "density")}
    columns |= {name: (rows.filter(pl.col("mask") == mask), "overlap") for name, mask in OVERLAPS.items()}
    return {
        name: over_seeds(part.group_by("arm", "seed").agg(value=100 * weighted_mean(column, "matrix")).collect())
        for name, (part, column) in columns.items()
    }


def draw(tables: Tables, store: Store | None = None) -> Drawing:
    alpha = nearest_weight(tables)
    parts = {} if alpha is None else measure_figure(tables, alpha)
    if alpha is None or all(rows.is_empty() for rows in parts.values()):
        return draw_nothing("No run of the suite core is measured.")
    from pipelines.paper import maps

    shown = pl.DataFrame(schema=blocks.SCHEMA) if store is None else blocks.sum_masks(tables, store, RUNS, alpha, SEED)
    arms = [arm for arm in RUNS if any(arm in set(rows["arm"]) for rows in parts.values())]
    absent = "The maps need the runs' weights, which are not in this store." if store else "The maps need a store."
    numbers = [
        spread_numbers(rows, f"{name}, mean over matrices", "%", find_published(FIGURE3, name))
        for name, rows in parts.items()
    ]
    return Drawing(
        chart=maps.draw_maps(shown, parts, arms, FIGURE3, 100 * alpha),
        numbers=pl.concat(numbers),
        absent=(absent,) if shown.is_empty() else (),
    )


ITEM = Item(
    key="figure3",
    title="Figure 3: where the changed weights are",
    needs=("update_support", "localization"),
    shows="Above, in blocks of one matrix (the second block's output projection, seed 0): the share of changed "
    "weights, and the share of these inside the principal mask and inside the low-magnitude mask of the start. Below, "
    "the same over all matrices, beside the paper's numbers and chance.",
    not_shown="How large the changes are. bf16's grid is finer at small weights, so a small weight shows changes that "
    "a large one hides: that alone favours the low-magnitude mask. The paper's matrix has 4096 columns, and its global "
    "numbers may be of that matrix alone; its masks hold 30 % of the weights, which its own counts require.",
    published=FIGURE3,
    draw=draw,
)
