"""One run of the grid: its trajectory in the object store, and its training and evaluation tables."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from assets import effort, metadata, monitor
from assets.effort import Effort
from assets.models import STEPS, anchor, base, losses, run_facts, teacher, train_if_incomplete
from assets.partitions import POOL, every, run_of, runs
from assets.resources import ClusterResource, StoreResource
from opd_ops.recipe import Recipe
from pipelines.store import integrity
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

GROUP = "trajectories"


@dg.multi_asset(
    name="run",
    partitions_def=runs,
    pool=POOL,
    specs=[
        dg.AssetSpec(
            "trajectory",
            description="Snapshots of one run at its scheduled steps: fp32 masters, committed by manifests.",
            deps=[
                dg.AssetDep(base, partition_mapping=every),
                dg.AssetDep(teacher, partition_mapping=every),
                dg.AssetDep(anchor, partition_mapping=every),
            ],
            **metadata.asset_arguments(GROUP, "ray", "torch", version=metadata.SNAPSHOTS),
        ),
        metadata.table_spec("training", GROUP, metadata.SNAPSHOTS, deps=["trajectory"]),
        metadata.table_spec("evaluation", GROUP, metadata.SNAPSHOTS, deps=["trajectory"]),
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
        monitor.GUARD,
    ],
)
def run(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource) -> Iterator[Any]:
    """Train one recipe with one seed, or reuse the complete run in the store."""
    recipe, seed = run_of(context.partition_key)
    opened, spent = store.open(), Effort()
    end = train_if_incomplete(context, opened, cluster, recipe, seed, spent)
    told = effort.read_seconds(opened, recipe.name, seed, without=effort.BESIDE) | spent.facts()
    yield dg.MaterializeResult(
        asset_key="trajectory",
        metadata=run_facts(opened, recipe, seed, end) | told,
        data_version=dg.DataVersion(end["digest"]),
        check_results=[readable(opened, recipe, seed, end)],
    )
    told = metadata.report(recipe.study) | told
    made = table(opened, "training", recipe, seed)
    yield dg.MaterializeResult(
        asset_key="training",
        metadata=training_facts(made) | told,
        data_version=made.version,
        check_results=[monitor.check_guard(made.rows)],
    )
    accuracy = table(opened, "evaluation", recipe, seed)
    yield dg.MaterializeResult(
        asset_key="evaluation",
        metadata=evaluation_facts(accuracy)
        | told
        | effort.read_seconds(opened, recipe.name, seed, phases=["evaluate"]),
        check_results=[check_learning(accuracy.rows)],
        data_version=accuracy.version,
    )


def training_facts(part: metadata.Part) -> dict[str, Any]:
    """Metadata of a run's training table."""
    last = part.rows.select("step", "loss", "reward", "kl", "grad_norm").tail(5)
    return losses(part) | {"last_steps": metadata.small_table(last.to_dicts())} | part.facts()


def evaluation_facts(part: metadata.Part) -> dict[str, Any]:
    """Metadata of a run's evaluation table."""
    levels = part.rows.select("step", "temperature", "accuracy", "stderr", "n")
    curves = metadata.curves(by_temperature(levels), STEPS, "accuracy")
    return curves | {"accuracy": metadata.small_table(levels.to_dicts())} | part.facts()


def by_temperature(rows: pl.DataFrame) -> dict[str, list[tuple[float, float]]]:
    """(step, accuracy) by temperature, as lines of a chart."""
    return {
        f"T={temperature:g}": part.select("step", "accuracy").drop_nulls().rows()
        for (temperature,), part in rows.partition_by("temperature", as_dict=True).items()
    }


def table(store: Store, name: str, recipe: Recipe, seed: int) -> metadata.Part:
    """A training table of a complete run. Errors: Failure if it is absent, as in a store copied in part."""
    found = metadata.part(store, name, recipe=recipe.name, seed=seed)
    if found is None:
        place = f"lake/{name}/recipe={recipe.name}/seed={seed}"
        raise dg.Failure(
            f"{recipe.name} seed {seed} is complete and {store.uri}/{place} is gone: bring it back, or "
            f"move the run aside, to train it again: opd rm {recipe.name}/{seed}",
            allow_retries=False,
        )
    return found


def readable(store: Store, recipe: Recipe, seed: int, end: dict[str, Any]) -> dg.AssetCheckResult:
    """Whether every snapshot of a complete run equals its manifest, byte for byte."""
    trajectory = Trajectory(store, recipe.name, seed)
    steps = trajectory.steps()
    absent = sorted(set(end["snapshots"]) - set(steps))
    problems = [f"step {step} is not committed" for step in absent]
    problems += [problem for step in steps for problem in integrity.find_problems(trajectory, step)]
    return dg.AssetCheckResult(
        check_name="snapshots_readable",
        asset_key="trajectory",
        passed=not problems,
        metadata={"snapshots": len(steps), "problems": metadata.problems(problems)},
    )


def check_learning(rows: pl.DataFrame) -> dg.AssetCheckResult:
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
