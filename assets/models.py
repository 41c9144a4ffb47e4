"""The models of a study: its base, its teacher, and per seed the anchor that the other arms start from."""

from typing import Any

import dagster as dg

from assets import effort, metadata
from assets.effort import Effort
from assets.failures import fail_in_one_line
from assets.partitions import POOL, anchor_of, anchored, by_study, every, same, study_of, taught
from assets.progress import Tracker
from assets.resources import ClusterResource, StoreResource
from opd_ops.recipe import FinalOf, Recipe, SnapshotOf, Start, Weights
from pipelines.runs.resources import needs
from pipelines.runs.trajectories.training import complete, require_parents, train
from pipelines.store.objects import Store
from pipelines.store.snapshot import folder
from pipelines.studies.study import Study

ABOUT = metadata.asset_arguments("models", "ray", "torch", version=metadata.SNAPSHOTS)
STEPS = "optimizer step"
ELSEWHERE = "weights that were trained elsewhere"


@dg.asset(partitions_def=by_study, pool=POOL, **ABOUT)
def base(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource):
    """The model every arm descends from: trained here, or weights that were trained elsewhere."""
    return _model(context, store, cluster, "base")


@dg.asset(partitions_def=taught, deps=[dg.AssetDep(base, partition_mapping=same)], pool=POOL, **ABOUT)
def teacher(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource):
    """The model whose token distribution the OPD student learns: trained here or elsewhere, or the base."""
    return _model(context, store, cluster, "teacher")


@dg.asset(partitions_def=anchored, deps=[dg.AssetDep(base, partition_mapping=every)], pool=POOL, **ABOUT)
def anchor(context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource):
    """The SFT run of a seed, whose end OPD, RLVR and the matched control start from."""
    study, seed = anchor_of(context.partition_key)
    (recipe,) = study.anchors()
    return _train(context, store, cluster, recipe, seed)


def describe_given_model(study: Study, arm: str) -> tuple[Start, str]:
    """The base or the teacher of a study that trains neither, and a description.

    It is weights, a run of another study, or random weights; never a run of the study itself.
    """
    arms = study.every_arm()
    own = {recipe.name for recipe in arms}
    starts = [recipe.start for recipe in arms if vars(recipe.start).get("recipe") not in own]
    start = next((start for start in starts if isinstance(start, Weights)), starts[0] if starts else arms[0].start)
    objectives = [recipe.objective for recipe in arms] if arm == "teacher" else []
    teachers = [objective.teacher for objective in objectives if objective.needs_teacher]
    others = [model for model in teachers if model is not None and vars(model).get("recipe") not in own]
    for model in sorted(others, key=lambda model: not isinstance(model, Weights)):
        return model, ELSEWHERE if isinstance(model, Weights) else _origin(study, model)
    if teachers and None in teachers:
        return start, "the base itself, reading the privileged prompt"
    return start, ELSEWHERE if isinstance(start, Weights) else _origin(study, start)


def _origin(study: Study, start: Start) -> str:
    """A description of where an arm starts if it starts from no weights of its study."""
    if isinstance(start, FinalOf | SnapshotOf):
        seed = "the same seed" if start.seed is None else f"seed {start.seed}"
        return f"{start.recipe}, {seed}: a run of another study, since {study.name} trains no base"
    return "random weights"


def train_if_incomplete(
    context: dg.AssetExecutionContext,
    store: Store,
    cluster: ClusterResource,
    recipe: Recipe,
    seed: int,
    spent: Effort,
) -> dict[str, Any]:
    """end.json of a run, trained first if it is not complete. Errors: Failure in one line."""
    tracker = Tracker(context, recipe.name, seed)
    with fail_in_one_line():
        needed = not complete(store, recipe, seed)
        if needed:
            require_parents(store, recipe, seed)
            needs.require([recipe])
        with spent.session(cluster, effort.describe_trainer(recipe), needed=needed):
            return train(store, recipe, seed, serial=cluster.serial, progress=tracker.trained)


def _model(
    context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource, arm: str
) -> dg.MaterializeResult:
    study, spent = study_of(context.partition_key), Effort()
    for recipe in study.models:
        if recipe.arm == arm:
            return _train(context, store, cluster, recipe, 0)
    from pipelines.runs.trajectories import starts

    weights, source = describe_given_model(study, arm)
    if not isinstance(weights, Weights):
        return dg.MaterializeResult(metadata={"source": source} | spent.alone() | metadata.report(study.name))
    with fail_in_one_line():
        place, digest = starts.fetch(store.open(), weights.ref)
    if digest == weights.ref:
        source += "; a name of the hub, looked for when a run needs it"
    return dg.MaterializeResult(
        metadata={"dagster/uri": place, "weights": weights.ref, "digest": digest, "source": source}
        | spent.alone()
        | metadata.report(study.name),
        data_version=dg.DataVersion(digest),
    )


def _train(
    context: dg.AssetExecutionContext, store: StoreResource, cluster: ClusterResource, recipe: Recipe, seed: int
) -> dg.MaterializeResult:
    opened, spent = store.open(), Effort()
    end = train_if_incomplete(context, opened, cluster, recipe, seed, spent)
    return dg.MaterializeResult(
        metadata=losses(metadata.part(opened, "training", recipe=recipe.name, seed=seed))
        | run_facts(opened, recipe, seed, end)
        | effort.read_seconds(opened, recipe.name, seed, without=effort.BESIDE)
        | spent.facts(),
        data_version=dg.DataVersion(end["digest"]),
    )


def losses(training: metadata.Part | None) -> dict[str, Any]:
    """The loss over training as a figure; empty for a run without a table."""
    rows = [] if training is None else training.rows.select("step", "loss").drop_nulls().rows()
    return metadata.curves({"loss": rows}, STEPS, "loss")


def run_facts(store: Store, recipe: Recipe, seed: int, end: dict[str, Any]) -> dict[str, Any]:
    """Metadata of a complete run."""
    shown = ("temperature", "accuracy", "stderr", "n")
    place = f"{store.uri}/runs/{recipe.name}/seed-{seed}"
    return {
        "dagster/uri": place,
        "manifest": f"{place}/{folder(end['step'])}/manifest.json",
        "steps": end["step"],
        "snapshots": len(end["snapshots"]),
        "digest": end["digest"],
        "accuracy": metadata.small_table([{key: row[key] for key in shown} for row in end["evaluation"]]),
        "recipe": dg.MetadataValue.json(recipe.identity()),
        "fingerprint": recipe.fingerprint(),
    } | metadata.report(recipe.study)
