"""Table 1: the share of weights that bf16 shows unchanged."""

import polars as pl

from pipelines.paper.arms import ARMS
from pipelines.paper.item import Item, draw_nothing
from pipelines.paper.published import TABLE1
from pipelines.paper.published import UNCHANGED as QUANTITY
from pipelines.paper.spread import over_seeds, spread_numbers
from pipelines.statistics.metrics import UNCHANGED
from pipelines.statistics.samples import collect_samples
from pipelines.store.objects import Store
from pipelines.studies.story import Drawing, Tables

PAIRS = [one.arm for one in TABLE1 if one.arm not in ("sft", "opd", "rlvr")]  # what the paper lists besides


def measure_figure(tables: Tables) -> pl.DataFrame:
    """Unchanged weights in % by arm over seeds, weighted by parameter count."""
    runs = collect_samples([UNCHANGED], tables, [arm.key for arm in ARMS])[UNCHANGED]
    return over_seeds(runs.with_columns(pl.col("value") * 100))


def draw(tables: Tables, store: Store | None = None) -> Drawing:
    rows = measure_figure(tables)
    if rows.is_empty():
        return draw_nothing("No run of the suite core is measured.")
    from pipelines.paper import dots

    arms = [arm.key for arm in ARMS if arm.key in set(rows["arm"])]
    return Drawing(
        chart=dots.draw_beside(rows, arms, TABLE1, PAIRS, "unchanged weights (%)", (0, 100)),
        numbers=spread_numbers(rows, QUANTITY, "%", TABLE1),
    )


ITEM = Item(
    key="table1",
    title="Table 1: weights that bf16 shows unchanged",
    needs=("update_support",),
    shows="The share of projection weights whose bf16 value at the end is that of the start, per arm, beside the "
    "paper's 8B runs, its other students and the public pairs it measures.",
    not_shown="How far the other weights moved, or whether an unchanged weight was trained: its master moves below "
    "what bf16 resolves. The share falls with the learning rate and the number of steps, so levels of a model with "
    "other ones are not comparable with the paper's; the order of arms that share them is.",
    published=TABLE1,
    draw=draw,
)
