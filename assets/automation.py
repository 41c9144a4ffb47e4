"""Jobs, the nightly sweep that requests what is missing or stale, and the other unattended work."""

from collections.abc import Callable, Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg

from assets import (
    conditions,
    exhibits,
    geometry,
    models,
    notify,
    offers,
    switches,
    trajectories,
    transfer,
    verdicts,
    watch,
)
from assets.partitions import STUDIES, anchor_key, run_key
from assets.resources import StoreResource
from opd_ops.recipe import Recipe
from pipelines.runs.geometry.measuring import is_measured
from pipelines.runs.trajectories.training import complete, parents
from pipelines.runs.verdicts import comparing
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Study

base_job = dg.define_asset_job("models", [models.base], description="The base of a study.")
teacher_job = dg.define_asset_job("teachers", [models.teacher], description="The teacher of a study that has one.")
anchors_job = dg.define_asset_job("anchors", [models.anchor], description="The SFT run that the other arms start from.")
runs_job = dg.define_asset_job(
    "runs", [trajectories.run, geometry.geometry], description="Train one recipe with one seed and measure it."
)
comparison_job = dg.define_asset_job(
    "comparison",
    [transfer.regime, transfer.predictions, verdicts.verdicts, verdicts.report],
    description="Regimes, predictions, verdicts and report of a study.",
)
transfers_job = dg.define_asset_job(
    "transfers",
    [transfer.transfer],
    description="Accuracy of a complete run on other families of its task. Add the run as a partition: tiny.opd|0.",
)
exhibits_job = dg.define_asset_job(
    "exhibits", list(exhibits.ASSETS), description="The tables and figures that a study adds, drawn from its runs."
)
BY_MODEL = {"base": base_job, "teacher": teacher_job}
SWEPT = [base_job, teacher_job, anchors_job, runs_job, comparison_job, exhibits_job]
JOBS = [*SWEPT, transfers_job, watch.job, offers.job]
ZONE = switches.read_timezone()
NIGHTLY = "; ".join(f"{name}: {', '.join(study.nightly)}" for name, study in STUDIES.items() if study.nightly)
FIRST, LAST = 1, 5  # hours of the night


@dg.sensor(
    name="geometry_sweep",
    jobs=SWEPT,
    minimum_interval_seconds=600,
    default_status=switches.default_status("nightly"),
    description=(
        "Geometry sweep: by night, trains, measures and compares what is missing or stale in the nightly suites "
        f"({NIGHTLY or 'no study names any'}), every ten minutes from 01:00 to 06:00 {ZONE}. "
        f"{switches.how_to_switch('nightly')}"
    ),
)
def sweep(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult:
    """Look at the store once, at night."""
    now = datetime.now(ZoneInfo(ZONE))
    if not FIRST <= now.hour <= LAST:
        return dg.SensorResult(skip_reason=f"it is {now:%H:%M} in {ZONE}; the sweep works from 01:00 to 06:00")
    requests = build_requests(context.instance, store.open(), now, context.log.warning)
    if not requests:
        return dg.SensorResult(skip_reason="nothing that could run now is missing or stale")
    return dg.SensorResult(run_requests=requests)


def build_requests(
    instance: dg.DagsterInstance, store: Store, time: datetime, warn: Callable[[str], None]
) -> list[dg.RunRequest]:
    """Requests for what is missing or stale in opted-in suites and can run; their partitions are offered.

    A partition is requested once a night, so a failing one is not repeated, and its descendants never start.
    """
    requests = []
    for study in STUDIES.values():
        arms = [recipe for suite in study.nightly for recipe in study.arms(suite)]
        asked = list(list_stale(store, study, warn))
        if asked:
            offers.offer(instance, offers.of_runs(study, arms, study.seeds))
        requests += [
            dg.RunRequest(run_key=f"{night(time)}:{job}:{partition}", job_name=job, partition_key=partition)
            for job, partition in asked
        ]
    return requests


def night(time: datetime) -> str:
    """The date in the sweep's time zone; in another zone one night can have two dates."""
    return f"{time.astimezone(ZoneInfo(ZONE)):%Y-%m-%d}"


def list_stale(store: Store, study: Study, warn: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """(job, partition) of what is missing or stale in the study's nightly suites and can run now."""
    arms = [recipe for suite in study.nightly for recipe in study.arms(suite)]
    absent = [model for model in study.models if arms and state(store, model, 0, warn) is False]
    if absent:
        waiting = [model for model in absent if not has_parents(store, model, 0)]
        yield from ((BY_MODEL[model.arm].name, study.name) for model in absent if model not in waiting)
        return
    pending = False
    for recipe, seed in ((recipe, seed) for recipe in arms for seed in study.seeds):
        trained = state(store, recipe, seed, warn)
        if trained and is_measured(store, recipe, seed, study.measurement):
            continue
        pending = True
        if trained is None or not (trained or has_parents(store, recipe, seed)):
            continue
        if recipe.arm == study.anchor and not trained:
            yield anchors_job.name, anchor_key(study.name, seed)
        else:
            yield runs_job.name, run_key(recipe.name, seed)
    if arms and not pending and not comparing.is_compared(store, study):
        yield comparison_job.name, study.name
        if exhibits.list_exhibits(study):
            yield exhibits_job.name, study.name


def has_parents(store: Store, recipe: Recipe, seed: int) -> bool:
    """Whether all parents of a run are complete."""
    return all(Trajectory(store, name, number).end() is not None for name, number in parents(recipe, seed))


def state(store: Store, recipe: Recipe, seed: int, warn: Callable[[str], None]) -> bool | None:
    """Whether a run is complete; None, with a warning, for a stored run of another recipe, which cannot be redone."""
    try:
        return complete(store, recipe, seed)
    except ValueError as error:
        warn(str(error))
        return None


SENSORS = [sweep, conditions.sensor, watch.sensor, notify.sensor]
