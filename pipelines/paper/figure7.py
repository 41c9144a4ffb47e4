"""Figure 7: stable rank of the update with fewer tokens, the teacher's rollouts and mixed objectives."""

from pipelines.paper import variants
from pipelines.paper.item import Item, draw_nothing
from pipelines.paper.published import FIGURE7, STABLE_RANK
from pipelines.paper.spread import at_the_end, spread_numbers
from pipelines.store.objects import Store
from pipelines.studies.story import Drawing, Tables


def draw(tables: Tables, store: Store | None = None) -> Drawing:
    rows = variants.measure_variants(tables, STABLE_RANK)
    groups, absent = variants.started_groups(rows), variants.describe_absent(tables, rows)
    if not groups:
        return draw_nothing(*absent)
    from pipelines.paper import grid

    lines = [variants.draw_row(group, rows, "stable rank (no unit)", FIGURE7) for group in groups]
    return Drawing(
        chart=grid.stack_rows(lines),
        numbers=spread_numbers(at_the_end(rows), STABLE_RANK, "", FIGURE7),
        absent=absent,
    )


ITEM = Item(
    key="figure7",
    title="Figure 7: stable rank when tokens, rollouts or the objective vary",
    needs=("update_norm",),
    shows="Whether the stable rank of OPD's update changes with the tokens that are kept (largest log-ratio or random, "
    "a half or a quarter), with whose rollouts are read, and with the weight of OPD against RLVR in the objective.",
    not_shown="The paper's arms exactly: it varies the sampled token's policy gradient, which is opd-pg here; token "
    "and rollout arms here have the exact reverse KL, mixes RLVR's batch. Every panel has an axis of its own: the "
    "paper's levels belong to 4096 columns.",
    suites=("objectives",),
    published=FIGURE7,
    draw=draw,
)
