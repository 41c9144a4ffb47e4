"""Assets across all runs of a study: verdicts, means by weighting, role and layer, and the report."""

import dagster as dg
import polars as pl

from assets import conditions, lineage, metadata
from assets.effort import Effort
from assets.failures import fail_in_one_line
from assets.partitions import STUDIES, by_study, every, study_of
from assets.resources import StoreResource
from assets.transfer import predictions, regime
from pipelines.cli.verdicts import count_statements, format_difference
from pipelines.runs.geometry.measuring import TABLES
from pipelines.runs.verdicts import comparing
from pipelines.statistics import headline
from pipelines.statistics.stories import story_of
from pipelines.studies.study import Study

GROUP = "verdicts"
CODE = metadata.digest_sources(*metadata.REPORTING)
FIRST = headline.METRICS[:5]  # of a study whose story names no other
NAMED = 4  # runs that a warning names; the metadata has all


def orderings(study: Study) -> dict[str, list[str]]:
    """The texts of directional claims about core arms, by the table that they use."""
    texts: dict[str, list[str]] = {}
    for claim in story_of(study).default_claims:
        if claim.suite == "core" and claim.kind != "differs":
            texts.setdefault(claim.metric.table, []).append(claim.text)
    return texts


FAMILIES = tuple(dict.fromkeys(table for study in STUDIES.values() for table in orderings(study)))


@dg.asset(
    partitions_def=by_study,
    **metadata.asset_arguments(GROUP, "polars", "parquet", version=CODE),
    deps=[dg.AssetDep(table, partition_mapping=every) for table in (*TABLES, "training", "evaluation")],
    metadata={"dagster/column_schema": metadata.columns("verdicts")},
    automation_condition=conditions.FOLLOW,
    freshness_policy=conditions.FRESH,
    check_specs=[
        dg.AssetCheckSpec(
            f"orderings_{family}",
            asset="verdicts",
            description=f"No statement of the study's story on {family} is contradicted by the interval over seeds.",
        )
        for family in FAMILIES
    ],
)
def verdicts(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """Every claim with its effect, the 95 % interval over seeds, and what the story's source reports."""
    study, opened, spent = study_of(context.partition_key), store.open(), Effort()
    with fail_in_one_line():
        missing = comparing.list_missing(opened, study)
        if missing:
            named = ", ".join(missing[:NAMED]) + (" and so on" if len(missing) > NAMED else "")
            context.log.warning(f"{len(missing)} runs are not measured yet, and left out: {named}")
        rows = comparing.decide_claims(opened, study)
        excluded = comparing.describe_excluded(opened, study)
        for line in excluded:
            context.log.warning(f"left out of the verdicts: {line}")
    found = metadata.part(opened, "verdicts", study=study.name)
    assert found is not None
    return dg.MaterializeResult(
        metadata={"result": count_statements(rows), "verdicts": metadata.small_table(verdict_rows(rows))}
        | found.facts()
        | {"missing": missing, "left_out": excluded}
        | lineage.column_lineage("verdicts")
        | spent.alone()
        | metadata.report(study.name),
        check_results=[check_claims(family, orderings(study).get(family, []), rows) for family in FAMILIES],
        data_version=found.version,
    )


@dg.asset(
    partitions_def=by_study,
    deps=[verdicts, regime, predictions],
    **metadata.asset_arguments(GROUP, "altair", version=CODE),
    automation_condition=conditions.FOLLOW,
    freshness_policy=conditions.FRESH,
)
def report(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """One self-contained page: headline table, figures, suites, verdicts in words, power, limits, provenance."""
    study, opened, spent = study_of(context.partition_key), store.open(), Effort()
    with fail_in_one_line():
        key = comparing.publish_report(opened, study)
        story = story_of(study)
        rows = headline.headline_rows(study.name, comparing.read_tables(opened, study), story, story.headline or FIRST)
    shown = {"headline": headline.render_markdown(rows, story), **comparing.render_suites(opened, study)}
    return dg.MaterializeResult(
        metadata={
            "dagster/uri": f"{opened.uri}/{key}",
            **metadata.report(study.name),
            **{name: dg.MetadataValue.md(table) for name, table in shown.items()},
            **{name: metadata.figure(png) for name, png in comparing.render_figures(opened, study).items()},
            **spent.alone(),
        },
        data_version=metadata.version_of(comparing.comparison_inputs(opened, study)),
    )


def verdict_rows(rows: pl.DataFrame) -> list[dict[str, str]]:
    """Statements in few columns, which fit a page of 1440 px, failures first; the lake has all columns."""
    order = ("fails", "undecided", "holds")
    return [
        {
            "statement": row["claim"],
            "verdict": row["status"],
            "difference": format_difference(row),
            "control": row["control_says"] or "",
        }
        for row in sorted(rows.to_dicts(), key=lambda row: order.index(row["status"]))
    ]


def check_claims(family: str, texts: list[str], rows: pl.DataFrame) -> dg.AssetCheckResult:
    """The check of the claims `texts` on one table; a warning with the values if an interval contradicts one."""
    found = rows.filter(pl.col("claim").is_in(texts))
    against = found.filter(pl.col("holds") == False)  # noqa: E712
    return dg.AssetCheckResult(
        check_name=f"orderings_{family}",
        passed=against.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        description="contradicted: " + "; ".join(against["claim"].to_list()) if against.height else None,
        metadata={
            "hold": int(found["holds"].eq(True).sum()),
            "undecided": int(found["holds"].is_null().sum()),
            "contradicted": against.height,
            "measured": metadata.small_table(
                found.select("claim", "left_value", "right_value", "low", "high", "holds").to_dicts()
            ),
        },
    )
