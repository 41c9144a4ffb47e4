"""Figure 9: norm and Hill index of the update with fewer tokens, the teacher's rollouts and mixed objectives."""

import polars as pl

from pipelines.paper import variants
from pipelines.paper.item import Item, draw_nothing
from pipelines.paper.published import FIGURE9, HILL, NORM, find_published
from pipelines.paper.spread import at_the_end, spread_numbers
from pipelines.store.objects import Store
from pipelines.studies.story import Drawing, Tables

QUANTITIES = ((NORM, "norm (weight units)", "weight units"), (HILL, "Hill index (no unit)", ""))


def draw(tables: Tables, store: Store | None = None) -> Drawing:
    rows = {name: variants.measure_variants(tables, name) for name, _, _ in QUANTITIES}
    absent = variants.describe_absent(tables, rows[NORM])
    groups = variants.started_groups(rows[NORM])
    if not groups:
        return draw_nothing(*absent)
    from pipelines.paper import grid

    lines = [
        variants.draw_row(group, rows[name], title, find_published(FIGURE9, name))
        for group in groups
        for name, title, _ in QUANTITIES
    ]
    ends = [
        spread_numbers(at_the_end(rows[name]), name, unit, find_published(FIGURE9, name))
        for name, _, unit in QUANTITIES
    ]
    return Drawing(chart=grid.stack_rows(lines), numbers=pl.concat(ends), absent=absent)


ITEM = Item(
    key="figure9",
    title="Figure 9: norm and tail when tokens, rollouts or the objective vary",
    needs=("update_norm", "hill", "nulls"),
    shows="The size and the spectral tail of the updates of figure 7: whether an arm that keeps OPD's stable rank also "
    "keeps its norm and its Hill index.",
    not_shown="Equal training: an arm that keeps a quarter of the tokens has a noisier gradient, and its update "
    "differs in size for that reason alone. Every panel has an axis of its own. The paper's Hill k is not given, and "
    "early Hill in bf16 is rounding; read the masters.",
    suites=("objectives",),
    published=FIGURE9,
    draw=draw,
)
