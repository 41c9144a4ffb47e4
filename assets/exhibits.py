"""One asset per exhibit of a story: a table or figure of a paper, drawn from all runs of a study with that story."""

import dagster as dg

from assets import conditions, metadata
from assets.effort import Effort
from assets.failures import fail_in_one_line
from assets.partitions import STUDIES, drawn, every, study_of
from assets.resources import StoreResource
from pipelines.runs.verdicts import comparing
from pipelines.statistics.samples import fill_tables
from pipelines.statistics.stories import story_of
from pipelines.studies.story import Exhibit
from pipelines.studies.study import Study

GROUP = "verdicts"
CODE = metadata.digest_sources(*metadata.REPORTING)


def list_exhibits(study: Study) -> tuple[Exhibit, ...]:
    """The exhibits of a study's story."""
    return story_of(study).exhibits


def make_asset(item: Exhibit) -> dg.AssetsDefinition:
    """The asset of one exhibit; it waits for every partition of its tables."""

    @dg.asset(
        name=item.key,
        partitions_def=drawn,
        **metadata.asset_arguments(GROUP, "altair", version=CODE),
        description=f"{item.title}. {item.shows}",
        deps=[dg.AssetDep(table, partition_mapping=every) for table in item.needs],
        metadata={"does_not_show": item.not_shown},
        automation_condition=conditions.FOLLOW,
    )
    def picture(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        from pipelines.report.figures import render_png

        study, opened, spent = study_of(context.partition_key), store.open(), Effort()
        with fail_in_one_line():
            drawing = item.draw(fill_tables(comparing.read_tables(opened, study)), opened)
            png = None if drawing.chart is None else render_png(drawing.chart, scale=1.0)
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


KNOWN = {item.key: item for study in STUDIES.values() for item in list_exhibits(study)}
ASSETS = [make_asset(item) for item in KNOWN.values()]
