"""The paper, figure by figure: one asset per table and figure of arXiv 2606.07082, drawn from all runs of a study."""

import dagster as dg

from assets import metadata
from assets.effort import Effort
from assets.failures import explained
from assets.partitions import STUDIES, by_study, every
from assets.resources import StoreResource
from pipelines.paper.item import Item
from pipelines.paper.items import ITEMS
from pipelines.runs.verdicts import comparing

GROUP = "verdicts"
CODE = metadata.sources("pipelines.report")


def asset_of(item: Item) -> dg.AssetsDefinition:
    """The asset of one item; it waits for every partition of the tables that the item is drawn from."""

    @dg.asset(
        name=item.key,
        partitions_def=by_study,
        **metadata.house(GROUP, "altair", version=CODE),
        description=f"{item.title}. {item.shows}",
        deps=[dg.AssetDep(table, partition_mapping=every) for table in item.needs],
        metadata={"does_not_show": item.not_shown},
    )
    def drawn(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from pipelines.paper import section

        study, opened, spent = STUDIES[context.partition_key], store.open(), Effort()
        with explained():
            drawing = item.draw(fill_tables(comparing.tables(opened, study)), opened)
            picture = section.picture(drawing)
        for sentence in drawing.absent:
            context.log.warning(f"{item.key}: {sentence}")
        figure = {} if picture is None else {"figure": metadata.figure(picture)}
        numbers = drawing.numbers.to_dicts()
        return dg.MaterializeResult(
            metadata=figure
            | {"numbers": metadata.small_table(numbers), "left_out": list(drawing.absent)}
            | spent.alone()
            | metadata.report(study.name),
            data_version=metadata.version_of([numbers, drawing.absent]),
        )

    return drawn


ASSETS = [asset_of(item) for item in ITEMS]
