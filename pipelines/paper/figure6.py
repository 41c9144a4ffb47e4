"""Figure 6: accuracy with the gradient confined to 16 early directions, OPD and SFT."""

import polars as pl

from pipelines.paper import confinement
from pipelines.paper.item import Item, draw_nothing
from pipelines.paper.published import ACCURACY, FIGURE6
from pipelines.paper.spread import spread_numbers
from pipelines.store.objects import Store
from pipelines.studies.story import Drawing, Tables

PARENTS = ("opd", "sft")
TEMPERATURE = 1.0


def draw(tables: Tables, store: Store | None = None) -> Drawing:
    rows = confinement.accuracy_rows(tables).filter(pl.col("temperature") == TEMPERATURE)
    families, absent = confinement.started_families(rows, PARENTS), confinement.describe_absent(tables, rows, PARENTS)
    if not families:
        return draw_nothing(*absent)
    from pipelines.paper import resumed

    arms = [arm for family in families for arm in family.arms.values()]
    ends = rows.filter(pl.col("point") == "end", pl.col("arm").is_in(arms))
    reported = [value for family in families for value in family.among(FIGURE6)]
    return Drawing(
        chart=resumed.draw_resumed([(rows, f"accuracy at T={TEMPERATURE:g} (%)")], families, FIGURE6),
        numbers=spread_numbers(ends, f"final {ACCURACY} at T={TEMPERATURE:g}", "%", reported),
        absent=absent,
    )


ITEM = Item(
    key="figure6",
    title="Figure 6: OPD and SFT, free and confined to 16 early directions",
    needs=("evaluation",),
    shows="Whether a run that goes on from an early step with its gradient confined to the leading 16 input directions "
    "of its own update so far ends as accurate as one that goes on free, or as one confined to 16 random directions.",
    not_shown="Equal severity: 16 directions are a larger part of a small model's inputs than of the paper's 4096, and "
    "they cut more from an update that is spread wider. Gradients are confined, steps are not: Adam's scaling lets "
    "some of the update leave the subspace. The paper's numbers are AIME 2024, from comments in its source.",
    suites=("interventions",),
    published=FIGURE6,
    draw=draw,
)
