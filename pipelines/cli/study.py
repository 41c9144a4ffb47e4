"""`opd study`: list, show or run the named studies."""

import argparse
import os
import sys
from collections.abc import Collection, Sequence

from opd_ops.recipe import Recipe
from pipelines.cli import names, new, rm, study_show, verdicts
from pipelines.cli.layout import wrap_text
from pipelines.cli.options import STUDY, Commands, add_commands
from pipelines.store.names import escape_text
from pipelines.store.objects import Store, default_uri
from pipelines.studies.catalog import HERE, read_catalog
from pipelines.studies.study import Study


def register(commands: Commands) -> None:
    top = commands.add_parser("study", help="list, show or run studies, and read their verdicts")
    top.description = "A study is a grid of recipes x seeds."
    parts = add_commands(top)
    parts.add_parser("list", help="the studies, and how much of each is in the store").set_defaults(
        command=list_studies
    )
    new.register(parts)
    study_show.add_parser(parts)
    run = parts.add_parser(
        "run",
        help="train, measure, compare and report",
        description="Run a study through Dagster: train what is missing, measure it, decide the verdicts, write the "
        "report. What the store holds already is reused.",
    )
    _add_selection(run)
    run.add_argument(
        "--replace",
        action="append",
        default=[],
        metavar="ARM",
        help="move the runs of this arm that are there aside first, as `opd rm` does, and make them again; repeatable",
    )
    run.add_argument("--yes", action="store_true", help="replace without asking")
    run.set_defaults(command=run_study)
    verdicts.add_parser(parts)
    backfill = parts.add_parser(
        "backfill",
        help="ask a running Dagster for the same",
        description="Ask a Dagster that is up (`make ui`) for a backfill of the study: its daemon launches what is "
        "missing, and shows it in the UI. What the store holds already is reused.",
    )
    _add_selection(backfill)
    backfill.add_argument("--url", metavar="URL", help="of Dagster's webserver (default: http://127.0.0.1:3000)")
    backfill.set_defaults(command=backfill_study)


def _add_selection(top: argparse.ArgumentParser) -> None:
    """Which runs of a study."""
    top.add_argument("name", metavar="NAME", help=STUDY)
    top.add_argument(
        "--suite", action="append", default=[], metavar="S", help="named part of the study (default: core); repeatable"
    )
    top.add_argument("--recipe", action="append", default=[], metavar="R", help="only this recipe; may be repeated")
    top.add_argument("--seed", action="append", default=[], type=int, metavar="N", help="only this seed; repeatable")


def list_studies(_: argparse.Namespace) -> int:
    store = Store(default_uri())
    catalog = read_catalog()
    print(wrap_text(f"runs measured, of all, in {store.uri}"))
    for study in catalog.studies.values():
        origin = catalog.origins[study.name]
        first = f"{study.name:<9} "
        print(f"\n{wrap_text(study.title + ('' if origin == HERE else f', from {origin}'), first)}")
        try:
            counts = by_suite(store, study)
        except ValueError as error:  # a stored run of a changed recipe hides no other study
            print(wrap_text(str(error), " " * len(first)))
            continue
        parts = (f"{suite}\N{NO-BREAK SPACE}{measured}/{of}" for suite, (measured, of) in counts.items())
        time = f"; core takes {study.minutes} on two cores" if study.minutes else ""
        print(wrap_text(f"{', '.join(parts)}{time}", " " * len(first)).replace("\N{NO-BREAK SPACE}", " "))
    for name in list_unlisted(store, catalog.studies):
        print(f"\n{wrap_text(f'{name} has runs here, and no file of it is known: export OPD_STUDIES=FILE')}")
    for line in catalog.broken:
        print(f"error: {escape_text(line)}", file=sys.stderr)
    return 0


def list_unlisted(store: Store, known: Collection[str]) -> list[str]:
    """Studies that have runs in the store, and that this catalog does not know."""
    names = {recipe.partition(".")[0] for recipe in store.list("runs")}
    return sorted(names - {*known, "external"})


def run_study(given: argparse.Namespace) -> int:
    """Validate, then become the process that runs the study through Dagster (`assets.launch`)."""
    study, suites = names.resolve_study(given.name), given.suite or ["core"]
    arms, seeds = study.select(suites, names.resolve_arms(study, suites, given.recipe), given.seed)
    store = Store(default_uri())
    replaced = list_replaceable(store, study, given.replace, seeds)
    if replaced:
        require_recipes(store, study, arms, seeds, replaced)  # else the move would be for nothing
        if not rm.move_aside(store, replaced, given.yes):
            return 1
    return _run_assets("assets.launch", given, [])


def require_recipes(
    store: Store, study: Study, arms: Sequence[Recipe], seeds: list[int], replaced: list[tuple[str, int]]
) -> None:
    """Errors: ValueError for a run of the plan, but for those replaced, that is stored of another recipe."""
    from pipelines.runs.trajectories.training import complete

    runs = [(recipe, seed) for recipe in arms for seed in seeds]
    runs += [(recipe, 0) for recipe in (*study.models, *study.helpers)]
    for recipe, seed in runs:
        if (recipe.name, seed) not in replaced:
            complete(store, recipe, seed)


def list_replaceable(store: Store, study: Study, arms: list[str], seeds: list[int]) -> list[tuple[str, int]]:
    """The runs that are there of arms, by their name in the study or in full. Errors: ValueError for an unknown one."""
    from pipelines.runs import set_aside

    once = (*study.models, *study.helpers)
    found = []
    for arm in arms:
        of_arm = {recipe.name for recipe in (*once, *study.every_arm()) if arm in (recipe.arm, recipe.name)}
        if not of_arm:
            known = dict.fromkeys(recipe.arm for recipe in (*once, *study.every_arm()))
            raise names.describe_unknown(f"study {study.name} has no arm", arm, known)
        (name,) = of_arm
        numbers = [0] if name in {recipe.name for recipe in once} else seeds
        found += [(name, seed) for seed in numbers if set_aside.is_registered(store, name, seed)]
    return list(dict.fromkeys(found))


def backfill_study(given: argparse.Namespace) -> int:
    """Validate, then become the process that asks Dagster for a backfill (`assets.backfill`)."""
    return _run_assets("assets.backfill", given, ["--url", given.url] if given.url else [])


def _run_assets(module: str, given: argparse.Namespace, more: list[str]) -> int:
    study = names.resolve_study(given.name)
    suites = given.suite or ["core"]
    recipes = names.resolve_arms(study, suites, given.recipe)
    study.select(suites, recipes, given.seed)
    command = [sys.executable, "-P", "-m", module, study.name]  # -P: no module of the working folder comes first
    for suite in suites:
        command += ["--suite", suite]
    command += more
    for name in recipes:
        command += ["--recipe", name]
    for seed in given.seed:
        command += ["--seed", str(seed)]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def count_progress(store: Store, study: Study) -> tuple[int, int]:
    """Measured runs of the suites that were begun, and all of these."""
    from pipelines.runs.verdicts import comparing

    found = by_suite(store, study)
    counts = [found[suite] for suite in comparing.started_suites(store, study)]
    return sum(measured for measured, _ in counts), sum(of for _, of in counts)


def by_suite(store: Store, study: Study) -> dict[str, tuple[int, int]]:
    """Measured runs of each suite, and all of it."""
    from pipelines.runs.verdicts import comparing

    found = {}
    for suite, arms in study.suites.items():
        of = len(arms) * len(study.seeds)
        found[suite] = of - len(comparing.list_unmeasured(store, study, suite)), of
    return found
