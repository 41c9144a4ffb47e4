"""The models of a study: its base, its teacher, and per seed the anchor that the other arms start from."""

from typing import Any

import dagster as dg

from assets import metadata
from assets.failures import explained
from assets.partitions import STUDIES, anchored, by_study, every
from assets.progress import Tracker
from assets.resources import ClusterResource, StoreResource
from opd_ops.recipe import Recipe, Weights
from pipelines.runs.training import complete, require_parents, train

GROUP = "models"


@dg.asset(partitions_def=by_study, group_name=GROUP, kinds={"ray", "torch"})
def base(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource):
    """The model every arm descends from: trained here, or a Hugging Face folder."""
    return _model(context, store, cluster, "base", "weights that were trained elsewhere")


@dg.asset(partitions_def=by_study, group_name=GROUP, kinds={"ray", "torch"}, deps=[base])
def teacher(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource):
    """The model whose token-level distribution OPD's student learns from."""
    return _model(context, store, cluster, "teacher", "the base itself, reading the privileged prompt")


@dg.asset(
    partitions_def=anchored, group_name=GROUP, kinds={"ray", "torch"}, deps=[dg.AssetDep(base, partition_mapping=every)]
)
def anchor(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource):
    """The SFT run of a seed, whose end OPD, RLVR and the matched control start from."""
    assert isinstance(context.partition_key, dg.MultiPartitionKey)
    keys = context.partition_key.keys_by_dimension
    study = STUDIES[keys["study"]]
    recipe = next(arm for arm in study.every_arm() if arm.arm == study.anchor)
    return _train(context, store, cluster, recipe, int(keys["seed"]))


def _model(
    context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource, arm: str, otherwise: str
) -> dg.MaterializeResult:
    study = STUDIES[context.partition_key]
    for recipe in study.models:
        if recipe.arm == arm:
            return _train(context, store, cluster, recipe, 0)
    from pipelines.runs import starts

    start = study.every_arm()[0].start
    assert isinstance(start, Weights)
    with explained():
        folder, digest = starts.fetch(store.open(), start.ref)
    return dg.MaterializeResult(
        metadata={"dagster/uri": folder, "digest": digest, "source": otherwise}, data_version=dg.DataVersion(digest)
    )


def _train(
    context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource, recipe: Recipe, seed: int
) -> dg.MaterializeResult:
    opened = store.open()
    tracker = Tracker(context, recipe.name, seed)
    with explained(), cluster.session(needed=not complete(opened, recipe, seed)):
        require_parents(opened, recipe, seed)
        end = train(opened, recipe, seed, serial=cluster.serial, progress=tracker.trained)
    return dg.MaterializeResult(
        metadata=run_facts(opened.uri, recipe, seed, end), data_version=dg.DataVersion(end["digest"])
    )


def run_facts(uri: str, recipe: Recipe, seed: int, end: dict[str, Any]) -> dict[str, Any]:
    """Metadata of a complete run."""
    shown = ("temperature", "accuracy", "stderr", "n")
    return {
        "dagster/uri": f"{uri}/runs/{recipe.name}/seed-{seed}",
        "steps": end["step"],
        "snapshots": len(end["snapshots"]),
        "digest": end["digest"],
        "accuracy": metadata.small_table([{key: row[key] for key in shown} for row in end["evaluation"]]),
        "recipe": dg.MetadataValue.json(recipe.identity()),
        "fingerprint": recipe.fingerprint(),
    }
