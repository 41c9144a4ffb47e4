"""Partitions: requested or stored cells, and no others; `offers.py` lists them.

All partitions are dynamic. A static grid of recipes x seeds over all studies has cells that cannot run (a third seed of
a study of two), counts every unrequested suite as missing, and puts GPU runs behind "Materialize all". An asset has one
partitions definition, so static ones would need a copy of the graph for each study. Dynamic partitions are exact, at a
cost: Dagster stores them in its database, so a new database is filled from the store (`opd ui`, `arrivals.py`); and
Dagster cannot map a run to its study's base or its seed's anchor, so a backfill starts runs after all models and
anchors. A run's key is `recipe|seed` and an anchor's `seed|study`, as in a grid of both, so that records of a grid stay
valid.

Steps and matrices are rows of tables, never partitions. Files decide what is complete; Dagster's database is a view.
"""

import dagster as dg

from opd_ops.recipe import Recipe
from pipelines.studies.catalog import find_recipe, list_studies
from pipelines.studies.study import Study

STUDIES = list_studies()
POOL = "runs"  # of whatever trains or measures a run; dagster.yaml says how many at once
WATCHED = "watched"  # the pool of what measures checkpoints as they appear

by_study = dg.DynamicPartitionsDefinition(name="studies")
taught = dg.DynamicPartitionsDefinition(name="teachers")  # studies in which a student learns from a teacher
drawn = dg.DynamicPartitionsDefinition(name="exhibits")  # studies that bring figures of their own
anchored = dg.DynamicPartitionsDefinition(name="anchors")  # seeds of studies whose arms start from an anchor
runs = dg.DynamicPartitionsDefinition(name="runs")
transfers = dg.DynamicPartitionsDefinition(name="transfers")  # runs that were evaluated on other families
external = dg.DynamicPartitionsDefinition(name="external")  # checkpoints from elsewhere, by the name of their import
watched = dg.DynamicPartitionsDefinition(name="watched")  # those of them that `opd watch` names

every = dg.AllPartitionMapping()
same = dg.IdentityPartitionMapping()  # of the keys that both definitions have


def is_taught(study: Study) -> bool:
    """Whether the study has a teacher, its own or one named by an arm's objective."""
    taught_arms = (recipe.objective.needs_teacher for recipe in study.every_arm())
    return any(model.arm == "teacher" for model in study.models) or any(taught_arms)


def run_key(recipe: str, seed: int) -> str:
    """The partition of one run."""
    return f"{recipe}|{seed}"


def run_of(key: str) -> tuple[Recipe, int]:
    """Recipe and seed of a run's partition. Errors: Failure for an invalid key, which a user can type."""
    name, bar, seed = key.rpartition("|")
    if not bar:
        raise dg.Failure(f"partition {key!r} is no RECIPE|SEED, as tiny.opd|0", allow_retries=False)
    try:
        recipe = find_recipe(name)
    except ValueError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    study = STUDIES[recipe.study]
    once = recipe in (*study.models, *study.helpers)
    return recipe, seed_of(study, seed, (0,) if once else study.seeds)


def anchor_key(study: str, seed: int) -> str:
    """The partition of one anchor."""
    return f"{seed}|{study}"


def anchor_of(key: str) -> tuple[Study, int]:
    """Study and seed of an anchor's partition. Errors: as `run_of`."""
    seed, _, name = key.partition("|")
    study = study_of(name)
    if study.anchor is None:
        raise dg.Failure(f"study {name} has no anchor: its arms start from other weights", allow_retries=False)
    return study, seed_of(study, seed, study.seeds)


def study_of(key: str) -> Study:
    """The study of a partition. Errors: Failure for an unknown name, which a user can type."""
    if key not in STUDIES:
        raise dg.Failure(f"there is no study {key!r}; known: {', '.join(STUDIES)}", allow_retries=False)
    return STUDIES[key]


def seed_of(study: Study, key: str, seeds: tuple[int, ...]) -> int:
    """The seed of a partition. Errors: Failure for a seed outside `seeds`."""
    if key not in map(str, seeds):
        raise dg.Failure(
            f"study {study.name} has no seed {key}; it has: {', '.join(map(str, seeds))}", allow_retries=False
        )
    return int(key)
