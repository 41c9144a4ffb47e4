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
    """Add the options that select runs of a study."""
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
        except ValueError as error:  # one stored run with a changed recipe must not hide other studies
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
    """Studies that have runs in the store but are not in this catalog."""
    names = {recipe.partition(".")[0] for recipe in store.list("runs")}
    return sorted(names - {*known, "external"})


def run_study(args: argparse.Namespace) -> int:
    """Validate, then replace this process by the one that runs the study through Dagster (`assets.launch`)."""
    study, suites = names.resolve_study(args.name), args.suite or ["core"]
    arms, seeds = study.select(suites, names.resolve_arms(study, suites, args.recipe), args.seed)
    store = Store(default_uri())
    replaced = list_replaceable(store, study, args.replace, seeds)
    if replaced:
        require_recipes(store, study, arms, seeds, replaced)  # checked before runs are moved
        if not rm.move_aside(store, replaced, args.yes):
            return 1
    return _run_assets("assets.launch", args, [])


def require_recipes(
    store: Store, study: Study, arms: Sequence[Recipe], seeds: list[int], replaced: list[tuple[str, int]]
) -> None:
    """Check the plan, except for the runs to replace. Errors: ValueError for a stored run with another recipe."""
    from pipelines.runs.trajectories.training import complete

    runs = [(recipe, seed) for recipe in arms for seed in seeds]
    runs += [(recipe, 0) for recipe in (*study.models, *study.helpers)]
    for recipe, seed in runs:
        if (recipe.name, seed) not in replaced:
            complete(store, recipe, seed)


def list_replaceable(store: Store, study: Study, arms: list[str], seeds: list[int]) -> list[tuple[str, int]]:
    """The stored runs of arms, each named by arm or full name. Errors: ValueError for an unknown arm."""
    from pipelines.runs import set_aside

    once = (*study.models, *study.helpers)
    runs = []
    for arm in arms:
        of_arm = {recipe.name for recipe in (*once, *study.every_arm()) if arm in (recipe.arm, recipe.name)}
        if not of_arm:
            known = dict.fromkeys(recipe.arm for recipe in (*once, *study.every_arm()))
            raise names.describe_unknown(f"study {study.name} has no arm", arm, known)
        (name,) = of_arm
        numbers = [0] if name in {recipe.name for recipe in once} else seeds
        runs += [(name, seed) for seed in numbers if set_aside.is_registered(store, name, seed)]
    return list(dict.fromkeys(runs))


def backfill_study(args: argparse.Namespace) -> int:
    """Validate, then replace this process by the one that asks Dagster for a backfill (`assets.backfill`)."""
    return _run_assets("assets.backfill", args, ["--url", args.url] if args.url else [])


def _run_assets(module: str, args: argparse.Namespace, more: list[str]) -> int:
    study = names.resolve_study(args.name)
    suites = args.suite or ["core"]
    recipes = names.resolve_arms(study, suites, args.recipe)
    study.select(suites, recipes, args.seed)
    command = [sys.executable, "-P", "-m", module, study.name]  # -P: modules in the working folder must not shadow ours
    for suite in suites:
        command += ["--suite", suite]
    command += more
    for name in recipes:
        command += ["--recipe", name]
    for seed in args.seed:
        command += ["--seed", str(seed)]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def count_progress(store: Store, study: Study) -> tuple[int, int]:
    """Count measured runs and all runs, over the suites that have started."""
    from pipelines.runs.verdicts import comparing

    by_suites = by_suite(store, study)
    counts = [by_suites[suite] for suite in comparing.started_suites(store, study)]
    return sum(measured for measured, _ in counts), sum(of for _, of in counts)


def by_suite(store: Store, study: Study) -> dict[str, tuple[int, int]]:
    """Count measured runs and all runs of each suite."""
    from pipelines.runs.verdicts import comparing

    counts = {}
    for suite, arms in study.suites.items():
        of = len(arms) * len(study.seeds)
        counts[suite] = of - len(comparing.list_unmeasured(store, study, suite)), of
    return counts
