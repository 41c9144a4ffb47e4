"""Figure 8: the comparison of figure 6 at every sampling temperature, for every arm that is continued."""

import polars as pl

from pipelines.paper import confinement
from pipelines.paper.item import Item, draw_nothing
from pipelines.paper.published import ACCURACY, FIGURE8
from pipelines.paper.spread import spread_numbers
from pipelines.paper.suites import PARENTS
from pipelines.store.objects import Store
from pipelines.studies.story import Drawing, Tables


def describe_sampling(temperature: float) -> str:
    return "greedy" if temperature == 0 else f"T={temperature:g}"


def draw(tables: Tables, store: Store | None = None) -> Drawing:
    accuracies, parents = confinement.accuracy_rows(tables), tuple(PARENTS)
    families, absent = (
        confinement.started_families(accuracies, parents),
        confinement.describe_absent(tables, accuracies, parents),
    )
    if not families:
        return draw_nothing(*absent)
    from pipelines.paper import resumed

    arms = [arm for family in families for arm in family.arms.values()]
    ends = accuracies.filter(pl.col("point") == "end", pl.col("arm").is_in(arms))
    panels, numbers = [], []
    for temperature in sorted(accuracies["temperature"].unique(), reverse=True):
        at_temperature = pl.col("temperature") == temperature
        panels.append((accuracies.filter(at_temperature), f"{ACCURACY}, {describe_sampling(temperature)} (%)"))
        numbers.append(
            spread_numbers(ends.filter(at_temperature), f"final {ACCURACY}, {describe_sampling(temperature)}", "%", ())
        )
    return Drawing(
        chart=resumed.draw_resumed(panels, families, (), ranges=FIGURE8), numbers=pl.concat(numbers), absent=absent
    )


ITEM = Item(
    key="figure8",
    title="Figure 8: confined training, every arm and every way of sampling",
    needs=("evaluation",),
    shows="The comparison of figure 6 for all four arms, sampled and greedy, with the axis ranges of the paper's five "
    "benchmarks below.",
    not_shown="Five benchmarks: our task has one set of held-out problems, sampled in two ways. The paper's ranges say "
    "where its curves run and no more; its figure mixes avg@32, avg@8 and avg@4.",
    suites=("interventions",),
    published=FIGURE8,
    draw=draw,
)
