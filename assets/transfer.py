"""What is asked of finished runs: accuracy on other families, which regime they are in, what locking goes with."""

import dagster as dg

from assets import metadata
from assets.failures import explained
from assets.partitions import STUDIES, by_study, every, runs
from assets.resources import ClusterResource, StoreResource
from assets.trajectories import addressed
from pipelines.lake import TABLES, written
from pipelines.runs import judging
from pipelines.runs.predicting import READ, predict
from pipelines.runs.transfer import evaluate_transfers, transferred


@dg.asset(
    partitions_def=runs,
    group_name="trajectories",
    kinds={"ray", "torch"},
    deps=["trajectory"],
    description=TABLES["transfer"].meaning,
    metadata={"dagster/column_schema": metadata.columns("transfer")},
)
def transfer(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource) -> dg.MaterializeResult:
    """Evaluate one complete run on its study's other families, or find its rows made from these weights."""
    recipe, seed, opened = *addressed(context), store.open()
    with explained(), cluster.session(needed=not transferred(opened, recipe, seed)):
        evaluate_transfers(opened, [(recipe, seed)], serial=cluster.serial)
    rows = written(opened, "transfer", recipe=recipe.name, seed=seed)
    assert rows is not None
    shown = rows.filter(temperature=1.0).select("step", "family", "accuracy", "stderr", "n")
    return dg.MaterializeResult(
        metadata=metadata.stored(opened, "transfer", recipe=recipe.name, seed=seed)
        | {"accuracy": metadata.small_table(shown.to_dicts())}
    )


@dg.asset(
    partitions_def=by_study,
    group_name="comparison",
    kinds={"polars", "parquet"},
    deps=[dg.AssetDep(table, partition_mapping=every) for table in judging.READ],
    description=TABLES["regime"].meaning,
    metadata={"dagster/column_schema": metadata.columns("regime")},
)
def regime(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """Judge every measured run of a study beside its own references."""
    study = STUDIES[context.partition_key]
    with explained():
        told = judging.judge_study(store.open(), study.name)
    return dg.MaterializeResult(metadata={"runs": len(told), "regimes": metadata.small_table(told)})


@dg.asset(
    partitions_def=by_study,
    group_name="comparison",
    kinds={"polars", "parquet"},
    deps=[dg.AssetDep(table, partition_mapping=every) for table in READ],
    description=TABLES["predictions"].meaning,
    metadata={"dagster/column_schema": metadata.columns("predictions")},
)
def predictions(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """Correlate early locking with what the study's runs learnt."""
    from pipelines.report.prediction.words import sentence

    study, opened = STUDIES[context.partition_key], store.open()
    with explained():
        rows = predict(opened, study)
    return dg.MaterializeResult(
        metadata=metadata.stored(opened, "predictions", study=study.name)
        | {"told": sentence(rows) or "no run has both a similarity and an accuracy"}
    )
