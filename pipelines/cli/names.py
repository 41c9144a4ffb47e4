"""What a name on the command line means: a study, a recipe of a study, a run of the store or an import.

A run may be called by its recipe (`tiny.opd`), by the arm alone where one study only has it (`opd`), and an import with
or without its prefix (`external.mine`, `mine`); `NAME/SEED` names the seed as well.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence

from pipelines.store.objects import Store
from pipelines.studies.catalog import find_study, list_studies
from pipelines.studies.study import Study

IMPORTED = "external."
ALIKE = 0.5  # of 1: two letters that changed places in a word of four
MOST = 24  # names that a refusal lists


def suggest_names(name: str, known: Collection[str]) -> str:
    """`; did you mean 'tiny'?` where a known name is alike, by its arm where names have one; else empty."""
    arms = {each.rpartition(".")[2]: each for each in reversed(list(known))}
    close = difflib.get_close_matches(name.rpartition(".")[2], arms, 1, ALIKE)
    return f"; did you mean {arms[close[0]]!r}?" if close else ""


def describe_unknown(said: str, name: str, known: Collection[str], listed: str = "it has") -> ValueError:
    """The refusal of a name: what was said, the names that are like it, and all there are."""
    shown, more = list(known)[:MOST], len(known) - MOST
    others = f" and {more} more" if more > 0 else ""
    return ValueError(f"{said} {name!r}; {listed}: {', '.join(shown) or 'none'}{others}{suggest_names(name, known)}")


def resolve_study(reference: str) -> Study:
    """A study by its name, file or module. Errors: ValueError with the names that are like it."""
    known = list_studies()
    if reference in known or any(mark in reference for mark in "/:") or reference.endswith(".py"):
        return find_study(reference)
    raise describe_unknown(
        "unknown study", reference, known, "a file of your own is ./FILE.py, or in OPD_STUDIES; known"
    )


def resolve_recipe(name: str, known: Collection[str], said: str) -> str:
    """One of the `known` recipes by its name, its arm alone, or an import's name without its prefix.

    said: the refusal's first words. Errors: ValueError for none, and for an arm that several studies have.
    """
    for recipe in (name, f"{IMPORTED}{name}"):
        if recipe in known:
            return recipe
    same_arm = [recipe for recipe in known if recipe.partition(".")[2] == name]
    if len(same_arm) > 1:
        raise ValueError(f"{name!r} may be any of {', '.join(same_arm)}; write which")
    if same_arm:
        return same_arm[0]
    raise describe_unknown(said, name, known)


def resolve_arms(study: Study, suites: Sequence[str], names: Sequence[str]) -> list[str]:
    """Recipes of the suites of a study, each by its name or its arm. Errors: ValueError for an unknown one."""
    known = {recipe.name: recipe for suite in suites for recipe in study.arms(suite)}
    said = f"suite {', '.join(suites)} of study {study.name} has no recipe"
    return [resolve_recipe(name, known, said) for name in names]


def resolve_run(
    store: Store, name: str, seed: int | None, known: Mapping[str, Sequence[int]], default: int | None = None
) -> tuple[str, int]:
    """Recipe and seed of one of the `known` runs (recipe to its seeds) of a store.

    name: as of `resolve_recipe`, with `/SEED` behind it or without. seed: what another option says; where nothing says
    it, the run's only seed, or `default`. Errors: ValueError with what there is instead.
    """
    from pipelines.maintenance.inventory import parse_run

    named, own = parse_run(name)
    if own is not None and seed not in (None, own):
        raise ValueError(f"{name} names seed {own}, and --seed {seed}; leave one out")
    recipe = resolve_recipe(named, known, f"{store.uri} holds no run")
    seeds = known[recipe]
    there = f"it has seed {', '.join(map(str, seeds))}"
    number = next((given for given in (own, seed, seeds[0] if len(seeds) == 1 else default) if given is not None), None)
    if number is None:
        raise ValueError(f"{name} names no seed, and {store.uri} leaves no choice: {there}; write {recipe}/{seeds[0]}")
    if number not in seeds:
        raise ValueError(f"{store.uri} holds no run {recipe} seed {number}; {there}")
    return recipe, number


def list_registered(store: Store) -> dict[str, list[int]]:
    """The runs of a store, complete or not, imports among them: recipe to its seeds."""
    runs = {}
    for recipe in store.list("runs"):
        seeds = [name.removeprefix("seed-") for name in store.list(f"runs/{recipe}")]
        runs[recipe] = sorted(int(text) for text in seeds if text.isdecimal())
    return runs
