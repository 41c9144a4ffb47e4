"""Evaluations of finished runs: accuracy on other families, their regime, and what early locking predicts."""

import dagster as dg
import polars as pl

from assets import conditions, effort, lineage, metadata
from assets.effort import Effort
from assets.failures import fail_in_one_line
from assets.partitions import by_study, every, run_of, same, study_of, transfers
from assets.resources import ClusterResource, StoreResource
from pipelines.lake import TABLES
from pipelines.runs.verdicts import judging
from pipelines.runs.verdicts.predicting import READ, write_predictions
from pipelines.runs.verdicts.transfer import VERSION, evaluate_transfers, is_transferred

ABOUT = metadata.asset_arguments("verdicts", "polars", "parquet", version=metadata.digest_sources(*metadata.REPORTING))


@dg.asset(
    partitions_def=transfers,
    deps=[dg.AssetDep("trajectory", partition_mapping=same)],
    description=TABLES["transfer"].meaning,
    **metadata.asset_arguments("trajectories", "ray", "torch", "parquet", version=f"families {VERSION}"),
    metadata={"dagster/column_schema": metadata.columns("transfer")},
)
def transfer(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource) -> dg.MaterializeResult:
    """Evaluate one complete run on its study's other families, or reuse its rows if they are of these weights."""
    recipe, seed = run_of(context.partition_key)
    opened, spent = store.open(), Effort()
    with fail_in_one_line(), spent.session(cluster, effort.RUNS, needed=not is_transferred(opened, recipe, seed)):
        evaluate_transfers(opened, [(recipe, seed)], serial=cluster.serial)
    found = metadata.part(opened, "transfer", recipe=recipe.name, seed=seed)
    assert found is not None
    shown = found.rows.filter(temperature=1.0).select("step", "family", "accuracy", "stderr", "n")
    return dg.MaterializeResult(
        metadata=found.facts()
        | {"accuracy": metadata.small_table(shown.to_dicts())}
        | spent.facts()
        | metadata.report(recipe.study),
        data_version=found.version,
    )


@dg.asset(
    partitions_def=by_study,
    deps=[dg.AssetDep(table, partition_mapping=every) for table in judging.READ],
    **ABOUT,
    description=TABLES["regime"].meaning,
    metadata={"dagster/column_schema": metadata.columns("regime")},
    automation_condition=conditions.FOLLOW,
)
def regime(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """Judge every measured run of a study beside its own references."""
    study, opened, spent = study_of(context.partition_key), store.open(), Effort()
    with fail_in_one_line():
        told = judging.judge_study(opened, study.name)
    return dg.MaterializeResult(
        metadata={
            "dagster/uri": f"{opened.uri}/lake/regime",
            "runs": len(told),
            "regimes": metadata.small_table(told),
        }
        | lineage.column_lineage("regime")
        | spent.alone()
        | metadata.report(study.name),
        data_version=metadata.version_of(told),
    )


@dg.asset(
    partitions_def=by_study,
    deps=[dg.AssetDep(table, partition_mapping=every) for table in READ],
    **ABOUT,
    description=TABLES["predictions"].meaning,
    metadata={"dagster/column_schema": metadata.columns("predictions")},
    automation_condition=conditions.FOLLOW,
)
def predictions(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """Correlate early locking with the gains of the study's runs."""
    from pipelines.regimes.prediction.text import describe_prediction

    study, opened, spent = study_of(context.partition_key), store.open(), Effort()
    with fail_in_one_line():
        rows = write_predictions(opened, study)
    found = metadata.part(opened, "predictions", study=study.name)
    assert found is not None
    shown = rows.filter(pl.col("coefficient") == "spearman", pl.col("outcome") == "accuracy")
    columns = ("view", "share", "scope", "correlation", "low", "high", "p_value", "runs")
    return dg.MaterializeResult(
        metadata=found.facts()
        | {
            "told": describe_prediction(rows) or "no run has both a similarity and an accuracy",
            "rank_correlation_with_accuracy": metadata.small_table(shown.select(columns).to_dicts()),
        }
        | lineage.column_lineage("predictions")
        | spent.alone()
        | metadata.report(study.name),
        data_version=found.version,
    )
