"""Which partitions Dagster offers, and so counts as missing until they are made.

A suite is offered once a run of it is in the store, or once it is requested: by `opd study run`, `opd study backfill`,
the nightly sweep, or the job `offer` in the UI. Naming a study in OPD_STUDIES requests its suite core. A study of this
package is offered unasked only over a store that holds no study yet, so that a first look has something to start. Both
only if they can run here: their weights and data are available, and they need no GPU.
"""

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from assets import partitions
from assets.exhibits import list_exhibits
from assets.partitions import STUDIES, anchor_key, run_key
from opd_ops.recipe import Recipe
from pipelines.runs.external import watchlist
from pipelines.runs.resources import needs
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies import catalog
from pipelines.studies.study import Study

EXTERNAL = "external."  # begins the recipes of imports
Offers = dict[str, list[str]]  # partition keys by the name of their definition
BY_JOB = {  # the definition of a job's partitions
    "models": "studies",
    "teachers": "teachers",
    "anchors": "anchors",
    "runs": "runs",
    "comparison": "studies",
    "exhibits": "exhibits",
}


def of_study(study: Study) -> Offers:
    """The partitions of a study that do not depend on the suite: its models and its comparison."""
    return {
        "studies": [study.name],
        "teachers": [study.name] if partitions.is_taught(study) else [],
        "exhibits": [study.name] if list_exhibits(study) else [],
    }


def of_runs(study: Study, arms: Sequence[Recipe], seeds: Sequence[int]) -> Offers:
    """The study, the runs of some arms, and the anchors that they may start from."""
    anchors = [anchor_key(study.name, seed) for seed in seeds] if study.anchor else []
    runs = [run_key(recipe.name, seed) for recipe in arms for seed in seeds]
    return of_study(study) | {"anchors": anchors, "runs": runs}


def of_jobs(study: Study, asked: Iterable[tuple[str, str]]) -> Offers:
    """The study, and the partitions of a launch's jobs, which may belong to other studies."""
    return merge_offers(of_study(study), *({BY_JOB[job]: [partition]} for job, partition in asked))


def of_store(store: Store) -> Offers:
    """The partitions offered over a store without any request."""
    names = set(store.list("runs"))
    begun = {study.name: begun_suites(store, study, names) for study in STUDIES.values()}
    imports = [name.removeprefix(EXTERNAL) for name in sorted(names) if name.startswith(EXTERNAL)]
    offers: Offers = {"external": imports, "watched": sorted(set(imports) & set(watchlist.list_watches(store)))}
    own = {name for name, origin in catalog.read_catalog().origins.items() if origin == catalog.HERE}
    for study in STUDIES.values():
        suites = begun[study.name]
        if not suites and (study.name not in own or not any(begun.values())) and can_run(store, study):
            suites = ["core"]
        if suites:
            arms = [recipe for suite in suites for recipe in study.arms(suite)]
            offers = merge_offers(offers, of_runs(study, arms, study.seeds))
            helpers = [recipe for recipe in study.helpers if recipe.name in names]
            offers = merge_offers(offers, {"runs": [run_key(recipe.name, 0) for recipe in helpers]})
    return offers


def begun_suites(store: Store, study: Study, names: set[str]) -> list[str]:
    """The suites with a registered run. names: the recipes with a folder in the store."""
    return [
        suite
        for suite, arms in study.suites.items()
        if any(
            Trajectory(store, recipe.name, seed).is_registered()
            for recipe in arms
            if recipe.name in names
            for seed in study.seeds
        )
    ]


def can_run(store: Store, study: Study) -> bool:
    """Whether the suite core can run here, as far as is known without Ray: it needs no GPU and misses no file."""
    recipes = [*study.models, *study.arms()]
    if any(needs.count_gpus(recipe) for recipe in recipes):
        return False
    if study.weights and not store.exists(f"{study.weights}/config.json"):
        return False
    try:
        needs.require(recipes)
    except ValueError:
        return False
    return True


def merge_offers(*several: Mapping[str, Iterable[str]]) -> Offers:
    """The union of several offers, each key once and in order."""
    names = dict.fromkeys(name for offers in several for name in offers)
    return {name: list(dict.fromkeys(key for offers in several for key in offers.get(name, ()))) for name in names}


def offer(instance: dg.DagsterInstance, offers: Mapping[str, Sequence[str]]) -> int:
    """Add the partitions that are not offered yet; returns their number."""
    added = 0
    for name, keys in offers.items():
        known = set(instance.get_dynamic_partitions(name))
        new = [key for key in dict.fromkeys(keys) if key not in known]
        if new:
            instance.add_dynamic_partitions(name, new)
        added += len(new)
    return added


class Asked(dg.Config):
    """A study of `opd study list` and some of its suites; the seeds are the study's."""

    study: str
    suites: list[str] = ["core"]


@dg.op
def offer_suites(context: dg.OpExecutionContext, config: Asked) -> None:
    """Add the runs of the suites to the partitions. Errors: Failure naming an unknown study or suite."""
    study = partitions.study_of(config.study)
    try:
        arms, seeds = study.select(config.suites, [], [])
    except ValueError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    added = offer(context.instance, of_runs(study, arms, seeds))
    context.log.info(f"{study.name}, suite {', '.join(config.suites)}: {added} partitions added")


@dg.job(
    name="offer",
    description="Asks for suites of a study: their runs become partitions, which can then be materialised. "
    "In the launchpad: `ops: {offer_suites: {config: {study: tiny, suites: [objectives]}}}`.",
)
def job() -> None:
    offer_suites()
