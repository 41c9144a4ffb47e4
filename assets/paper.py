"""The paper, figure by figure: one asset per table and figure of arXiv 2606.07082, drawn from all runs of a study."""

import dagster as dg

from assets import following, metadata
from assets.effort import Effort
from assets.failures import explained
from assets.partitions import drawn, every, study_of
from assets.resources import StoreResource
from pipelines.report.paper.item import Item
from pipelines.report.paper.items import ITEMS
from pipelines.runs.verdicts import comparing
from pipelines.studies.study import Study

GROUP = "verdicts"
CODE = metadata.sources("pipelines.report")


def exhibits(study: Study) -> tuple[Item, ...]:
    """The items that are about a study: all where it has the paper's arms, else none."""
    arms = {recipe.arm for recipe in study.arms()}
    return ITEMS if {"sft", "opd", "rlvr"} <= arms else ()


def asset_of(item: Item) -> dg.AssetsDefinition:
    """The asset of one item; it waits for every partition of the tables that the item is drawn from."""

    @dg.asset(
        name=item.key,
        partitions_def=drawn,
        **metadata.house(GROUP, "altair", version=CODE),
        description=f"{item.title}. {item.shows}",
        deps=[dg.AssetDep(table, partition_mapping=every) for table in item.needs],
        metadata={"does_not_show": item.not_shown},
        automation_condition=following.FOLLOW,
    )
    def picture(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from pipelines.report.paper import section

        study, opened, spent = study_of(context.partition_key), store.open(), Effort()
        with explained():
            drawing = item.draw(section.whole(comparing.tables(opened, study)), opened)
            png = section.picture(drawing)
        for sentence in drawing.absent:
            context.log.warning(f"{item.key}: {sentence}")
        figure = {} if png is None else {"figure": metadata.figure(png)}
        numbers = drawing.numbers.to_dicts()
        return dg.MaterializeResult(
            metadata=figure
            | {"numbers": metadata.small_table(numbers), "left_out": list(drawing.absent)}
            | spent.alone()
            | metadata.report(study.name),
            data_version=metadata.version_of([numbers, drawing.absent]),
        )

    return picture


ASSETS = [asset_of(item) for item in ITEMS]
