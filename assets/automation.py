"""Jobs, the nightly sweep that requests only what is missing or stale, and all that runs by itself beside it."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import dagster as dg

from assets import following, geometry, models, notify, paper, switches, trajectories, transfer, verdicts, watch
from assets.partitions import STUDIES, anchor_key, run_key
from assets.resources import StoreResource
from opd_ops.recipe import Recipe
from pipelines.runs.geometry.measuring import measured
from pipelines.runs.trajectories.training import complete, parents
from pipelines.runs.verdicts import comparing
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Study

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

models_job = dg.define_asset_job("models", [models.base, models.teacher], description="Base and teacher of a study.")
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
    "transfers", [transfer.transfer], description="Accuracy of one complete run on other families of its task."
)
paper_job = dg.define_asset_job(
    "paper",
    list(paper.ASSETS),
    description="Table 1 and Figures 2 to 9 of arXiv 2606.07082, drawn from a study's runs.",
)
SWEPT = [models_job, anchors_job, runs_job, comparison_job]  # by the nightly schedules
JOBS = [*SWEPT, transfers_job, paper_job, watch.job]
ZONE = switches.timezone()


def nightly(job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """From one to six at night: the job's missing or stale partitions, in opted-in suites, whose parents are complete.

    A partition is requested once a night, so a failing one is not repeated and what descends from it never starts.
    Dagster gives a schedule one job, hence one schedule per job.
    """

    @dg.schedule(
        name=f"nightly_{job.name}",
        cron_schedule="*/10 1-5 * * *",
        target=job,
        execution_timezone=ZONE,
        default_status=switches.schedule("nightly"),
    )
    def sweep(context: dg.ScheduleEvaluationContext, store: StoreResource) -> list[dg.RunRequest] | dg.SkipReason:
        opened, day = store.open(), night(context.scheduled_execution_time)
        requested = [
            dg.RunRequest(run_key=f"{day}:{job.name}:{partition}", partition_key=partition)
            for study in STUDIES.values()
            for name, partition in wanted(opened, study, context.log.warning)
            if name == job.name
        ]
        return requested or dg.SkipReason("nothing that could run now is missing or stale")

    return sweep


def night(time: datetime) -> str:
    """The date where the schedule runs: elsewhere one night can have two."""
    return f"{time.astimezone(ZoneInfo(ZONE)):%Y-%m-%d}"


def wanted(store: Store, study: Study, warn: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """(job, partition) of what is missing or stale in the study's nightly suites and can run now."""
    arms = [recipe for suite in study.nightly for recipe in study.arms(suite)]
    if arms and any(state(store, model, 0, warn) is False for model in study.models):
        yield models_job.name, study.name
        return
    pending = False
    for recipe, seed in ((recipe, seed) for recipe in arms for seed in study.seeds):
        trained = state(store, recipe, seed, warn)
        if trained and measured(store, recipe, seed, study.measurement):
            continue
        pending = True
        if trained is None or not (trained or ready(store, recipe, seed)):
            continue
        if recipe.arm == study.anchor and not trained:
            yield anchors_job.name, anchor_key(study.name, seed)
        else:
            yield runs_job.name, run_key(recipe.name, seed)
    if arms and not pending and not comparing.compared(store, study):
        yield comparison_job.name, study.name


def ready(store: Store, recipe: Recipe, seed: int) -> bool:
    """Whether all that a run descends from is complete."""
    return all(Trajectory(store, name, number).end() is not None for name, number in parents(recipe, seed))


def state(store: Store, recipe: Recipe, seed: int, warn: Callable[[str], None]) -> bool | None:
    """Whether a run is complete; None, with a warning, for a stored run of another recipe, which cannot be redone."""
    try:
        return complete(store, recipe, seed)
    except ValueError as error:
        warn(str(error))
        return None


SCHEDULES = [nightly(job) for job in SWEPT]
SENSORS = [following.sensor, watch.sensor, notify.sensor]
