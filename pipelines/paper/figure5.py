"""Figure 5: similarity of the leading subspace of the update to that of the end."""

import polars as pl

from pipelines.paper.curves import RUNS, pool_null
from pipelines.paper.item import Item, draw_nothing
from pipelines.paper.published import FIGURE5, SIMILARITY
from pipelines.paper.spread import over_seeds, spread_numbers
from pipelines.statistics import null_values
from pipelines.statistics.series import align_progress
from pipelines.store.objects import Store
from pipelines.studies.story import Drawing, Tables

EARLY = 21  # % of the run: the first checkpoint at which the paper sees OPD


def measure_figure(tables: Tables) -> tuple[pl.DataFrame, pl.DataFrame, float]:
    """Sim_16 of the runs and of the null (columns arm, view, progress, value, low, high, seeds), and chance."""
    both = null_values.locking_beside_null(tables["locking"], tables["nulls"], RUNS)
    rows = tables["locking"].filter(pl.col("side") == "input", pl.col("k") == null_values.SIMILARITY_K)
    chance = rows.select(pl.col("chance").mean()).collect().item()
    return over_seeds(align_progress(both.measured), "view", "progress"), pool_null(both.null, log=False), chance


def nearest_early(pooled: pl.DataFrame) -> pl.DataFrame:
    """Each line at the share nearest to `EARLY`."""
    away = (pl.col("progress") - EARLY).abs()
    return pooled.sort("arm", "view", away, "progress").unique(["arm", "view"], keep="first", maintain_order=True)


def draw(tables: Tables, store: Store | None = None) -> Drawing:
    runs, null, chance = measure_figure(tables)
    if runs.is_empty():
        return draw_nothing("No run of the suite core is measured at more than one step.")
    from pipelines.paper import grid

    line = grid.Line(
        title="Sim_16 to the end (0 to 1)",
        arms=tuple(arm for arm in RUNS if arm in set(runs["arm"])),
        runs=runs,
        null=null,
        floor=(chance, "chance"),
        domain=(0, 1),
    )
    near = nearest_early(runs)
    shares = {row["arm"]: f"at {row['progress']:.0f} %" for row in near.iter_rows(named=True)}
    nearest_shares = "; ".join(f"{arm} {share}" for arm, share in shares.items())
    return Drawing(
        chart=grid.arrange_grid([line]),
        numbers=spread_numbers(near.drop("progress"), f"{SIMILARITY} early ({nearest_shares})", "", FIGURE5),
    )


ITEM = Item(
    key="figure5",
    title="Figure 5: overlap with the final subspace",
    needs=("locking", "nulls"),
    shows="How much of the final update's leading 16 input directions is already there at each point of the run; the "
    "end itself, 1 by definition, is left out.",
    not_shown="Locking as such: chance is 16 over a matrix's inputs, higher for a small model than for the paper's "
    "4096, and in bf16 the thin dashed null, an update that never turns, rises too. Read the masters. The paper's "
    "first OPD checkpoint is 21 % into its run.",
    published=FIGURE5,
    draw=draw,
)
