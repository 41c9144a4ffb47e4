"""Partitions: by study for models and verdicts, study x seed for anchors, recipe x seed for everything measured.

Steps and matrices are rows of tables, never partitions. Files decide what is complete; Dagster's database is a view.
"""

import warnings
from functools import cache

import dagster as dg

from pipelines.runs.trajectories.training import parents
from pipelines.studies.catalog import studies
from pipelines.studies.study import Study

STUDIES = studies()
POOL = "runs"  # of whatever trains or measures a run; dagster.yaml says how many at once
WATCHED = "watched"  # the pool of what measures checkpoints as they appear
SEEDS = dg.StaticPartitionsDefinition([str(n) for n in sorted({n for study in STUDIES.values() for n in study.seeds})])


def grid(study: Study) -> list[str]:
    """Names of the recipes that are runs of the grid: the arms of all suites, and the helpers that some come from.

    In the order in which the UI offers and a backfill starts them: core, then what the other suites descend from.
    """
    names = [recipe.name for recipe in (*study.arms(), *study.helpers, *study.every_arm())]
    return list(dict.fromkeys(names))


def descended(study: Study) -> set[str]:
    """Names of the arms that are the anchor or come from it, at any remove."""
    (anchor,) = study.anchors()
    known = {recipe.name: recipe for recipe in (*study.models, *study.helpers, *study.every_arm())}

    @cache
    def comes(name: str) -> bool:
        if name not in known:  # a run of another study
            return False
        return name == anchor.name or any(comes(parent) for parent, _ in parents(known[name], 0))

    return {recipe.name for recipe in study.every_arm() if comes(recipe.name)}


by_study = dg.StaticPartitionsDefinition(list(STUDIES))
anchored = dg.MultiPartitionsDefinition(
    {"study": dg.StaticPartitionsDefinition([s.name for s in STUDIES.values() if s.anchor]), "seed": SEEDS}
)
runs = dg.MultiPartitionsDefinition(
    {
        "recipe": dg.StaticPartitionsDefinition([name for study in STUDIES.values() for name in grid(study)]),
        "seed": SEEDS,
    }
)

every = dg.AllPartitionMapping()
with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.BetaWarning)
    from_anchor = dg.MultiPartitionMapping(
        {
            "study": dg.DimensionPartitionMapping(
                "recipe", dg.StaticPartitionMapping({s.name: descended(s) for s in STUDIES.values() if s.anchor})
            ),
            "seed": dg.DimensionPartitionMapping("seed", dg.IdentityPartitionMapping()),
        }
    )


def seed_of(study: Study, key: str) -> int:
    """The seed of a partition. Errors: Failure for one of another study, which a grid of two dimensions offers too."""
    seed = int(key)
    if seed not in study.seeds:
        raise dg.Failure(f"study {study.name} has no seed {seed}; it has: {', '.join(map(str, study.seeds))}")
    return seed


def run_key(recipe: str, seed: int) -> dg.MultiPartitionKey:
    """The partition of one run."""
    return dg.MultiPartitionKey({"recipe": recipe, "seed": str(seed)})


def anchor_key(study: str, seed: int) -> dg.MultiPartitionKey:
    """The partition of one anchor."""
    return dg.MultiPartitionKey({"study": study, "seed": str(seed)})
