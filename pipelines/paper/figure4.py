"""Figure 4: stable rank, norm and Hill index of the update over training."""

import polars as pl

from pipelines.paper import published
from pipelines.paper.curves import RUNS, pool_null
from pipelines.paper.item import Item, draw_nothing
from pipelines.paper.published import FIGURE4, HILL, NORM, STABLE_RANK
from pipelines.paper.spread import at_the_end, over_seeds, spread_numbers
from pipelines.statistics import null_values
from pipelines.statistics.series import align_progress, progress_rows
from pipelines.store.objects import Store
from pipelines.studies.story import Drawing, Tables

QUANTITIES = (  # name, axis title, unit in the table, log axis
    (STABLE_RANK, "stable rank (no unit)", "", True),
    (NORM, "norm (weight units)", "weight units", True),
    (HILL, "Hill index (no unit)", "", False),
)


def measure_figure(tables: Tables) -> dict[str, tuple[pl.DataFrame, pl.DataFrame]]:
    """By quantity: arm, view, progress, value, low, high, seeds of the runs, and the null's."""
    ranks = null_values.stable_rank(tables["update_norm"], tables["nulls"], RUNS)
    tails = null_values.hill_beside_null(tables["hill"], tables["nulls"], RUNS)
    norms = progress_rows("update_norm", tables["update_norm"], "frobenius", RUNS)
    pairs = {
        STABLE_RANK: (ranks.measured, ranks.null),
        NORM: (norms, norms.head(0)),
        HILL: (tails.measured, tails.null),
    }
    logs = {name: log for name, _, _, log in QUANTITIES}
    return {
        name: (over_seeds(align_progress(runs), "view", "progress", log=logs[name]), pool_null(null, log=logs[name]))
        for name, (runs, null) in pairs.items()
    }


def draw(tables: Tables, store: Store | None = None) -> Drawing:
    rows = measure_figure(tables)
    if all(runs.is_empty() for runs, _ in rows.values()):
        return draw_nothing("No run of the suite core is measured.")
    from pipelines.paper import grid

    arms = tuple(arm for arm in RUNS if any(arm in set(runs["arm"]) for runs, _ in rows.values()))
    lines = [
        grid.Line(
            title=title, arms=arms, runs=runs, null=null, reported=published.find_published(FIGURE4, name), log=log
        )
        for name, title, _, log in QUANTITIES
        for runs, null in [rows[name]]
    ]
    ends = [
        spread_numbers(at_the_end(rows[name][0]), name, unit, published.find_published(FIGURE4, name))
        for name, _, unit, _ in QUANTITIES
    ]
    return Drawing(chart=grid.arrange_grid(lines), numbers=pl.concat(ends))


ITEM = Item(
    key="figure4",
    title="Figure 4: shape and size of the update over training",
    needs=("update_norm", "hill", "nulls"),
    shows="Whether the update spreads over more directions, grows, and gets a lighter or heavier spectral tail as "
    "training goes on, with the paper's ranges at the right.",
    not_shown="The paper's levels: its means are over the attention matrices of an 8B model, ours over all projection "
    "matrices, and the rank of small ones has a ceiling; its Hill k is not given, ours is the smallest that all "
    "matrices share. In bf16 the beginning is rounding: compare with the thin dashed null, which never turns.",
    published=FIGURE4,
    draw=draw,
)
