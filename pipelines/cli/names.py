"""Resolve names on the command line to a study, a recipe, a run of the store or an import.

A run is named by its recipe (`tiny.opd`), or by its arm (`opd`) if only one study has that arm. The prefix of an import
is optional (`external.mine`, `mine`). `NAME/SEED` also names the seed.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence

from pipelines.store.objects import Store
from pipelines.studies.catalog import find_study, list_studies
from pipelines.studies.study import Study

IMPORTED = "external."
ALIKE = 0.5  # least similarity, at most 1: four letters with two swapped still match
MOST = 24  # names that an error lists


def suggest_names(name: str, known: Collection[str]) -> str:
    """`; did you mean 'tiny'?` if a known name is similar, compared by arm if names have one; else empty."""
    arms = {each.rpartition(".")[2]: each for each in reversed(list(known))}
    close = difflib.get_close_matches(name.rpartition(".")[2], arms, 1, ALIKE)
    return f"; did you mean {arms[close[0]]!r}?" if close else ""


def describe_unknown(first_words: str, name: str, known: Collection[str], listed: str = "it has") -> ValueError:
    """Build the error for an unknown name: the name, similar names, and all known names."""
    shown, more = list(known)[:MOST], len(known) - MOST
    others = f" and {more} more" if more > 0 else ""
    return ValueError(
        f"{first_words} {name!r}; {listed}: {', '.join(shown) or 'none'}{others}{suggest_names(name, known)}"
    )


def resolve_study(reference: str) -> Study:
    """Load a study by its name, file or module. Errors: ValueError with similar names."""
    known = list_studies()
    if reference in known or any(mark in reference for mark in "/:") or reference.endswith(".py"):
        return find_study(reference)
    raise describe_unknown(
        "unknown study", reference, known, "a file of your own is ./FILE.py, or in OPD_STUDIES; known"
    )


def resolve_recipe(name: str, known: Collection[str], first_words: str) -> str:
    """Resolve a full name, an arm alone, or an import's name without its prefix to one of the `known` recipes.

    first_words: of the error. Errors: ValueError for an unknown name, and for an arm of several studies.
    """
    for recipe in (name, f"{IMPORTED}{name}"):
        if recipe in known:
            return recipe
    same_arm = [recipe for recipe in known if recipe.partition(".")[2] == name]
    if len(same_arm) > 1:
        raise ValueError(f"{name!r} may be any of {', '.join(same_arm)}; write which")
    if same_arm:
        return same_arm[0]
    raise describe_unknown(first_words, name, known)


def resolve_arms(study: Study, suites: Sequence[str], names: Sequence[str]) -> list[str]:
    """Resolve recipes of the suites of a study, by full name or arm. Errors: ValueError for an unknown recipe."""
    known = {recipe.name: recipe for suite in suites for recipe in study.arms(suite)}
    first_words = f"suite {', '.join(suites)} of study {study.name} has no recipe"
    return [resolve_recipe(name, known, first_words) for name in names]


def resolve_run(
    store: Store, name: str, seed: int | None, known: Mapping[str, Sequence[int]], default: int | None = None
) -> tuple[str, int]:
    """Resolve the recipe and seed of one of the `known` runs (recipe to seeds) of a store.

    name: as in `resolve_recipe`, optionally followed by `/SEED`. seed: from another option. Without either, the run's
    only seed or `default` is used. Errors: ValueError that lists the available seeds.
    """
    from pipelines.maintenance.inventory import parse_run

    named, own = parse_run(name)
    if own is not None and seed not in (None, own):
        raise ValueError(f"{name} names seed {own}, and --seed {seed}; leave one out")
    recipe = resolve_recipe(named, known, f"{store.uri} holds no run")
    seeds = known[recipe]
    available = f"it has seed {', '.join(map(str, seeds))}"
    number = next(
        (choice for choice in (own, seed, seeds[0] if len(seeds) == 1 else default) if choice is not None), None
    )
    if number is None:
        raise ValueError(
            f"{name} names no seed, and {store.uri} leaves no choice: {available}; write {recipe}/{seeds[0]}"
        )
    if number not in seeds:
        raise ValueError(f"{store.uri} holds no run {recipe} seed {number}; {available}")
    return recipe, number


def list_registered(store: Store) -> dict[str, list[int]]:
    """List all runs of a store as recipe to seeds: complete runs, incomplete runs and imports."""
    runs = {}
    for recipe in store.list("runs"):
        seeds = [name.removeprefix("seed-") for name in store.list(f"runs/{recipe}")]
        runs[recipe] = sorted(int(text) for text in seeds if text.isdecimal())
    return runs
