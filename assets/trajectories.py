"""One run of the grid: its trajectory in the object store, and its training and evaluation tables."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from assets import metadata
from assets.models import anchor, base, run_facts, teacher, trained
from assets.partitions import STUDIES, every, from_anchor, runs, seed_of
from assets.resources import ClusterResource, StoreResource
from opd_ops.recipe import Recipe
from pipelines.lake import written
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.catalog import find_recipe

GROUP = "trajectories"


@dg.multi_asset(
    name="run",
    partitions_def=runs,
    specs=[
        dg.AssetSpec(
            "trajectory",
            description="Snapshots of one run at its scheduled steps: fp32 masters, committed by manifests.",
            deps=[
                dg.AssetDep(base, partition_mapping=every),
                dg.AssetDep(teacher, partition_mapping=every),
                dg.AssetDep(anchor, partition_mapping=from_anchor),
            ],
            group_name=GROUP,
            kinds={"ray", "torch"},
        ),
        metadata.table_spec("training", deps=["trajectory"], group_name=GROUP),
        metadata.table_spec("evaluation", deps=["trajectory"], group_name=GROUP),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "snapshots_readable",
            asset="trajectory",
            blocking=True,
            description="Every scheduled snapshot is committed, and its bytes have the digest of its manifest.",
        ),
        dg.AssetCheckSpec(
            "learning_happened",
            asset="evaluation",
            description="Accuracy at T=1 rose by more than twice its standard error from start to end.",
        ),
    ],
)
def run(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource) -> Iterator[Any]:
    """Train one recipe with one seed, or find the run complete in the store."""
    recipe, seed, opened = *addressed(context), store.open()
    end = trained(context, opened, cluster, recipe, seed)
    yield dg.MaterializeResult(
        asset_key="trajectory",
        metadata=run_facts(opened.uri, recipe, seed, end),
        data_version=dg.DataVersion(end["digest"]),
        check_results=[readable(opened, recipe, seed, end)],
    )
    losses = table(opened, "training", recipe, seed)
    yield dg.MaterializeResult(
        asset_key="training",
        metadata=metadata.stored(opened, "training", recipe=recipe.name, seed=seed)
        | {"loss": metadata.small_table(losses.select("step", "loss", "reward", "kl", "grad_norm").tail(5).to_dicts())},
    )
    accuracy = table(opened, "evaluation", recipe, seed)
    yield dg.MaterializeResult(
        asset_key="evaluation",
        metadata=metadata.stored(opened, "evaluation", recipe=recipe.name, seed=seed)
        | {
            "accuracy": metadata.small_table(
                accuracy.select("step", "temperature", "accuracy", "stderr", "n").to_dicts()
            )
        },
        check_results=[learning(accuracy)],
    )


def addressed(context: dg.AssetExecutionContext) -> tuple[Recipe, int]:
    """Recipe and seed of the partition. Errors: Failure for a seed that the study does not have."""
    assert isinstance(context.partition_key, dg.MultiPartitionKey)
    keys = context.partition_key.keys_by_dimension
    recipe = find_recipe(keys["recipe"])
    return recipe, seed_of(STUDIES[recipe.study], keys["seed"])


def table(store: Store, name: str, recipe: Recipe, seed: int) -> pl.DataFrame:
    """What training wrote of a complete run. Errors: Failure where it is gone, as from a store copied in part."""
    rows = written(store, name, recipe=recipe.name, seed=seed)
    if rows is None:
        place = f"lake/{name}/recipe={recipe.name}/seed={seed}"
        raise dg.Failure(
            f"{recipe.name} seed {seed} is complete and {store.uri}/{place} is gone: bring it back, or remove "
            f"runs/{recipe.name}/seed-{seed} to train it again",
            allow_retries=False,
        )
    return rows


def readable(store: Store, recipe: Recipe, seed: int, end: dict[str, Any]) -> dg.AssetCheckResult:
    """Every snapshot of a complete run against its manifest, byte for byte."""
    trajectory = Trajectory(store, recipe.name, seed)
    steps = trajectory.steps()
    absent = sorted(set(end["snapshots"]) - set(steps))
    problems = [f"step {step} is not committed" for step in absent]
    problems += [problem for step in steps for problem in trajectory.verify(step)]
    return dg.AssetCheckResult(
        check_name="snapshots_readable",
        asset_key="trajectory",
        passed=not problems,
        metadata={"snapshots": len(steps), "problems": dg.MetadataValue.md("\n".join(problems) or "none")},
    )


def learning(rows: pl.DataFrame) -> dg.AssetCheckResult:
    """Sampled accuracy at the end against the start, in standard errors of the difference."""
    sampled = rows.filter(pl.col("temperature") == 1.0).sort("step")
    first, last = sampled.row(0, named=True), sampled.row(-1, named=True)
    gain = last["accuracy"] - first["accuracy"]
    noise = (first["stderr"] ** 2 + last["stderr"] ** 2) ** 0.5
    return dg.AssetCheckResult(
        check_name="learning_happened",
        asset_key="evaluation",
        passed=gain > 2 * noise,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "start": first["accuracy"],
            "end": last["accuracy"],
            "gain": gain,
            "standard_error": noise,
            "steps": f"{first['step']} to {last['step']}",
        },
    )
