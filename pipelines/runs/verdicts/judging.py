"""Judge which regime a measured run is in, from tables of the lake; the result goes to the lake."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from pipelines import lake
from pipelines.regimes.diagnostics import DIAGNOSTICS, VIEWS
from pipelines.regimes.judging import Comparison, agree_views, compare_run
from pipelines.regimes.profile import Profile, Run, read_profiles
from pipelines.regimes.rows import regime_rows
from pipelines.statistics.stories import story_of
from pipelines.store.objects import Store
from pipelines.studies.catalog import list_studies

BUDGETS = ("norm", "end")
READ = tuple(sorted({"update_norm", "nulls", *(diagnostic.table for diagnostic in DIAGNOSTICS)}))
Profiles = Mapping[tuple[str, int, str], Profile]


def measured_recipes(store: Store) -> dict[str, list[int]]:
    """Measured recipes, with imports, and their seeds."""
    found = lake.scan("update_norm", store.uri).select("recipe", "seed").unique().sort("recipe", "seed").collect()
    return {recipe: part["seed"].to_list() for (recipe,), part in found.partition_by("recipe", as_dict=True).items()}


def labels_of(study: str) -> dict[str, str]:
    """The reference arms of a study with their names in its story; empty for an unknown study."""
    known = list_studies()
    return dict(story_of(known[study]).references) if study in known else {}


def load_profiles(store: Store, runs: Sequence[Run], study: str) -> Profiles:
    """Profiles of these runs and of the reference runs of `study`, by (recipe, seed, view)."""
    tables = {name: lake.scan(name, store.uri) for name in READ}
    seeds = tables["update_norm"].filter(pl.col("study") == study)
    own = seeds.filter(pl.col("recipe").is_in([f"{study}.{arm}" for arm in labels_of(study)]))
    references = own.select("recipe", "seed").unique().collect().rows()
    return read_profiles(tables, [*runs, *references])


def judge_regime(found: Profiles, recipe: str, seed: int, study: str, step: int | None = None) -> list[Comparison]:
    """Judge a run in every view, at matched norm and at the ends, against the references of `study`.

    step: of the run; None is the last measured step. Errors: ValueError for a step that was not measured.
    """
    made, labels = [], labels_of(study)
    for view in VIEWS if labels else ():
        if (recipe, seed, view) not in found:
            continue
        run = found[recipe, seed, view]
        run = run if step is None else run.end_at(step)
        others = {
            (arm, number): profile
            for (name, number, seen), profile in found.items()
            for arm in labels
            if name == f"{study}.{arm}" and seen == view
        }
        made += [compare_run(run, study, labels, others, budget) for budget in BUDGETS]
    return made


def store_comparison(store: Store, comparisons: Sequence[Comparison]) -> None:
    """Add a run's comparisons to those of its other steps and references, if they are new."""
    run, study = comparisons[0].run, comparisons[0].study
    stored = lake.read_partition(store, "regime", recipe=run.recipe, seed=run.seed)
    made = regime_rows(comparisons)
    same = (pl.col("step") == int(run.steps[-1])) & pl.col("reference").str.starts_with(f"{study}.")
    if stored is not None and stored.filter(same).equals(pl.DataFrame(made, schema=stored.schema)):
        return
    old = [] if stored is None else stored.filter(~same).to_dicts()
    lake.write(store, "regime", old + made, recipe=run.recipe, seed=run.seed)


def judge_study(store: Store, study: str) -> list[dict[str, Any]]:
    """Judge every measured run of a study against its own references, and store the result."""
    seen = lake.scan("update_norm", store.uri).filter(pl.col("study") == study)
    runs = seen.select("recipe", "seed").unique().sort("recipe", "seed").collect().rows()
    found, told = load_profiles(store, runs, study), []
    for recipe, seed in runs:
        comparisons = judge_regime(found, recipe, seed, study)
        if comparisons:
            store_comparison(store, comparisons)
            views = {c.run.view: c.verdict for c in comparisons if c.budget == "norm"}
            told.append({"recipe": recipe, "seed": seed, "regime": agree_views(comparisons), **views})
    return told
