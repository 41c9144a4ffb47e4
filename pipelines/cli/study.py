"""`opd study`: list, show or run the named studies."""

import argparse
import os
import sys
from collections.abc import Sequence

from opd_ops.recipe import Recipe
from pipelines.cli import new, rm
from pipelines.cli.options import STUDY, Commands, Parser
from pipelines.store.names import escaped
from pipelines.store.objects import Store, default_uri
from pipelines.studies.catalog import HERE, find_study, read_catalog, spell
from pipelines.studies.data import data_lines
from pipelines.studies.study import Study


def register(commands: Commands) -> None:
    top = commands.add_parser("study", help="list, show or run the named studies")
    top.description = "A study is a grid of recipes x seeds."
    parts = top.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    parts.add_parser("list", help="the studies, and how much of each is in the store").set_defaults(
        command=list_studies
    )
    new.register(parts)
    show = parts.add_parser(
        "show",
        help="a study's recipes, and what of them is in the store",
        description="A study's recipes, and what of them is in the store. Of a study for GPUs also what each run takes:"
        " memory by actor, time by phase, bytes kept, from shapes alone.",
    )
    show.add_argument("name", metavar="NAME", help=STUDY)
    show.add_argument("--gpu", choices=("h100", "h200"), default="h200", help="the class to plan for (default: h200)")
    show.set_defaults(command=show_study)
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
    for study in catalog.studies.values():
        origin = catalog.origins[study.name]
        print(f"{study.name:<8} {study.title}{'' if origin == HERE else f'   from {origin}'}")
        try:
            found = by_suite(store, study)
        except ValueError as error:  # a stored run of a changed recipe hides no other study
            print(f"{'':<8} {error}")
            continue
        for suite, (complete, of) in found.items():
            time = f"; {study.minutes} on two cores" if study.minutes and suite == "core" else ""
            print(f"{'':<8} {suite}: {complete} of {of} runs measured in {store.uri}{time}")
    for line in catalog.broken:
        print(f"error: {escaped(line)}", file=sys.stderr)
    return 0


def show_study(given: argparse.Namespace) -> int:
    from pipelines.report.numbers import aligned
    from pipelines.runs.geometry.measuring import measured
    from pipelines.runs.trajectories.training import complete

    study, store = find_study(given.name), Store(default_uri())
    arms = study.every_arm()
    changed = []
    lines = [["recipe", "seed", "objective", "starts from", "learning rate", "steps", "in the store"]]
    for recipe in (*study.models, *arms):
        for seed in study.seeds if recipe in arms else (0,):
            start = vars(recipe.start).get("recipe") or vars(recipe.start).get("ref") or "random weights"
            try:
                trained = complete(store, recipe, seed)
                seen = recipe in arms and trained and measured(store, recipe, seed, study.measurement)
                state = "measured" if seen else "trained" if trained else "absent"
            except ValueError as error:
                state = "another recipe"
                changed.append(str(error))
            limit = f"<= {recipe.horizon.steps}" if recipe.horizon.gate else str(recipe.horizon.steps)
            rate = f"{recipe.optimizer.learning_rate:g}"
            lines.append([recipe.name, str(seed), recipe.objective.kind, start, rate, limit, state])
    time = f"   ({study.minutes} on two cores)" if study.minutes else ""
    print(f"{study.title}\n\n{aligned(lines)}\n\nrun it: opd study run {spell(study.name)}{time}")
    for suite in list(study.suites)[1:]:
        print(f"        opd study run {spell(study.name)} --suite {suite}")
    for line in data_lines(study):
        print(f"data: {line}")
    for line in changed:
        print(f"\n{escaped(line)}")
    if study.configs:
        show_plans(study, given.gpu)
    return 0


def show_plans(study: Study, gpu: str) -> None:
    """What each run of a study for GPUs takes."""
    from pipelines.cli.budget import assumptions, plan_text, plans
    from pipelines.runs.resources.gpu_plan import GPUS

    for plan in plans(study, GPUS[gpu]):
        print(f"\n{plan_text(plan)}")
    print(f"\n{assumptions(GPUS[gpu])}")


def run_study(given: argparse.Namespace) -> int:
    """Validate, then become the process that runs the study through Dagster (`assets.launch`)."""
    study = find_study(given.name)
    arms, seeds = study.select(given.suite or ["core"], given.recipe, given.seed)
    store = Store(default_uri())
    replaced = replaceable(store, study, given.replace, seeds)
    if replaced:
        require_recipes(store, study, arms, seeds, replaced)  # else the move would be for nothing
        if not rm.move(store, replaced, given.yes):
            return 1
    return _become("assets.launch", given, [])


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


def replaceable(store: Store, study: Study, arms: list[str], seeds: list[int]) -> list[tuple[str, int]]:
    """The runs that are there of arms, by their name in the study or in full. Errors: ValueError for an unknown one."""
    from pipelines.runs import aside

    once = (*study.models, *study.helpers)
    found = []
    for arm in arms:
        named = {recipe.name for recipe in (*once, *study.every_arm()) if arm in (recipe.arm, recipe.name)}
        if not named:
            known = dict.fromkeys(recipe.arm for recipe in (*once, *study.every_arm()))
            raise ValueError(f"study {study.name} has no arm {arm!r}; it has: {', '.join(known)}")
        (name,) = named
        numbers = [0] if name in {recipe.name for recipe in once} else seeds
        found += [(name, seed) for seed in numbers if aside.registered(store, name, seed)]
    return list(dict.fromkeys(found))


def backfill_study(given: argparse.Namespace) -> int:
    """Validate, then become the process that asks Dagster for a backfill (`assets.backfill`)."""
    return _become("assets.backfill", given, ["--url", given.url] if given.url else [])


def _become(module: str, given: argparse.Namespace, more: list[str]) -> int:
    study = find_study(given.name)
    suites = given.suite or ["core"]
    study.select(suites, given.recipe, given.seed)
    command = [sys.executable, "-m", module, study.name]
    for suite in suites:
        command += ["--suite", suite]
    command += more
    for name in given.recipe:
        command += ["--recipe", name]
    for seed in given.seed:
        command += ["--seed", str(seed)]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def progress(store: Store, study: Study) -> tuple[int, int]:
    """Measured runs of the suites that were begun, and all of these."""
    from pipelines.runs.verdicts import comparing

    found = by_suite(store, study)
    counts = [found[suite] for suite in comparing.begun(store, study)]
    return sum(measured for measured, _ in counts), sum(of for _, of in counts)


def by_suite(store: Store, study: Study) -> dict[str, tuple[int, int]]:
    """Measured runs of each suite, and all of it."""
    from pipelines.runs.verdicts import comparing

    found = {}
    for suite, arms in study.suites.items():
        of = len(arms) * len(study.seeds)
        found[suite] = of - len(comparing.unmeasured(store, study, suite)), of
    return found
