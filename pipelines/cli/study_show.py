"""`opd study show`: print the recipes of a study and the state of each run in the store."""

import argparse
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

from opd_ops.recipe import Recipe
from pipelines.cli.layout import fit_table, wrap_text
from pipelines.cli.names import resolve_study
from pipelines.cli.options import STUDY
from pipelines.store.names import escape_text
from pipelines.store.objects import Store, default_uri
from pipelines.studies.catalog import study_arg
from pipelines.studies.data import data_lines
from pipelines.studies.study import Study

LINES = 60  # beyond this many lines, suites without a stored run list only the names of their arms
STATES = ("measured", "trained", "absent", "another recipe")


def add_parser(parts: Any) -> None:
    """Add `opd study show` to the commands of `opd study`."""
    top = parts.add_parser(
        "show",
        help="a study's recipes, and what of them is in the store",
        description="A study's recipes by suite, one line an arm, with how many of its seeds are in the store. Of a "
        "study for GPUs also what each run takes: memory by actor, time by phase, bytes kept, from shapes alone.",
    )
    top.add_argument("name", metavar="NAME", help=STUDY)
    top.add_argument("--suite", action="append", default=[], metavar="S", help="only this suite; repeatable")
    top.add_argument("--all", action="store_true", help="every run of every suite on a line of its own")
    top.add_argument("--gpu", choices=("h100", "h200"), default="h200", help="the class to plan for (default: h200)")
    top.set_defaults(command=show_study)


@dataclass(frozen=True)
class Shown:
    """A recipe with the state of each of its runs."""

    recipe: Recipe
    states: dict[int, str]

    @property
    def is_begun(self) -> bool:
        return any(state != "absent" for state in self.states.values())

    def line(self, study: Study, seed: int | None = None) -> list[str]:
        """The cells of one seed, or of all seeds."""
        recipe = self.recipe
        start = vars(recipe.start).get("recipe") or vars(recipe.start).get("ref") or "random"
        steps = f"<= {recipe.horizon.steps}" if recipe.horizon.gate else str(recipe.horizon.steps)
        name = [recipe.arm] if seed is None else [recipe.arm, str(seed)]
        rate = f"{recipe.optimizer.learning_rate:g}"
        state = self.summary() if seed is None else self.states[seed]
        return [*name, recipe.objective.kind, rate, steps, state, _near(start.removeprefix(f"{study.name}."))]

    def summary(self) -> str:
        """`3/3 measured`, or with other states: `1/3 measured, 1 trained`."""
        counts, of = Counter(self.states.values()), len(self.states)
        parts = [f"{counts[state]} {state}" for state in STATES if counts[state] and state != "absent"]
        return f"{parts[0].replace(' ', f'/{of} ', 1)}{''.join(f', {part}' for part in parts[1:])}" if parts else "-"


def _near(reference: str) -> str:
    """The path relative to the working directory if that is shorter; other values unchanged."""
    return min(reference, os.path.relpath(reference), key=len) if os.path.isabs(reference) else reference


def show_study(args: argparse.Namespace) -> int:
    study, store = resolve_study(args.name), Store(default_uri())
    suites = {name: study.arms(name) for name in args.suite or study.suites}
    changed: list[str] = []
    models = [Shown(recipe, {0: _state(store, study, recipe, 0, changed)}) for recipe in study.models]
    arms = {
        name: [
            Shown(recipe, {seed: _state(store, study, recipe, seed, changed) for seed in study.seeds}) for recipe in of
        ]
        for name, of in suites.items()
    }
    seeds = f"seed{'' if len(study.seeds) == 1 else 's'} {', '.join(map(str, study.seeds))}"
    time = f"; core takes {study.minutes} on two cores" if study.minutes else ""
    print(f"{wrap_text(study.title)}\n{wrap_text(f'recipes {study.name}.ARM, {seeds}, in {store.uri}')}")
    print(wrap_text(f"run it: opd study run {study_arg(study.name)}{time}"))
    print("\n".join(_by_run(study, models, arms) if args.all else _by_arm(study, models, arms, bool(args.suite))))
    for line in data_lines(study):
        print(wrap_text(f"data: {line}"))
    for line in changed:
        print(f"\n{wrap_text(escape_text(line))}")
    if study.configs:
        _show_plans(study, args.gpu)
    return 0


def _state(store: Store, study: Study, recipe: Recipe, seed: int, changed: list[str]) -> str:
    """One of `STATES`; the reason for a changed recipe is appended to `changed`."""
    from pipelines.runs.geometry.measuring import is_measured
    from pipelines.runs.trajectories.training import complete

    try:
        if not complete(store, recipe, seed):
            return "absent"
        is_model = recipe in study.models
        return "measured" if not is_model and is_measured(store, recipe, seed, study.measurement) else "trained"
    except ValueError as error:
        changed.append(str(error))
        return "another recipe"


def _by_run(study: Study, models: list[Shown], arms: dict[str, list[Shown]]) -> list[str]:
    """One line for each run."""
    lines = [["arm", "seed", "objective", "rate", "steps", "in the store", "starts from"]]
    for shown in (*models, *(arm for of_suite in arms.values() for arm in of_suite)):
        lines += [shown.line(study, seed) for seed in shown.states]
    return ["", fit_table(lines)]


def _by_arm(study: Study, models: list[Shown], arms: dict[str, list[Shown]], whole: bool) -> list[str]:
    """One line for each arm of the first suite, and of started suites up to `LINES`; with `whole`, of all suites."""
    first = next(iter(arms))
    listed = list(arms) if whole else [first]
    blocks = _blocks(study, models, arms, listed)
    for name, of_suite in arms.items():
        if name not in listed and any(arm.is_begun for arm in of_suite):
            more = _blocks(study, models, arms, [*listed, name])
            if sum(map(_height, more)) <= LINES - 6:  # the heading and the hint about --suite
                listed, blocks = [*listed, name], more
    if len(listed) < len(arms):
        blocks.append(
            f"\n{wrap_text(f'arms of a suite: opd study show {study_arg(study.name)} --suite NAME; every run: --all')}"
        )
    return blocks


def _height(text: str) -> int:
    return len(text.splitlines())


def _blocks(study: Study, models: list[Shown], arms: dict[str, list[Shown]], listed: list[str]) -> list[str]:
    """One text for each suite: its head, and its arms as a table if it is `listed`, else by name only."""
    heading = ["arm", "objective", "rate", "steps", "in the store", "starts from"]
    table = [heading, *(shown.line(study) for shown in models)]
    table += [arm.line(study) for name in listed for arm in arms[name]]
    lines = iter(_rows(table))
    blocks = [f"\n{next(lines)}", *(next(lines) for _ in models)]
    for name, of_suite in arms.items():
        runs = [state for arm in of_suite for state in arm.states.values()]
        measured = f"{runs.count('measured')} of {len(runs)} runs measured"
        command = "" if name == "core" or runs.count("measured") == len(runs) else f" (--suite {name})"
        body = (
            [next(lines) for _ in of_suite]
            if name in listed
            else [wrap_text(", ".join(map(_name_suites, of_suite)), "  ")]
        )
        blocks.append("\n".join(["", f"{name}: {len(of_suite)} arms, {measured}{command}", *body]))
    return blocks


def _rows(table: list[list[str]]) -> list[str]:
    """The lines of `fit_table` for each row, as a row may take several lines."""
    rows: list[str] = []
    for line in fit_table(table).splitlines():
        if line.startswith(" ") and rows:
            rows[-1] += f"\n{line}"
        else:
            rows.append(line)
    return rows


def _name_suites(shown: Shown) -> str:
    return f"{shown.recipe.arm} {shown.summary()}" if shown.is_begun else shown.recipe.arm


def _show_plans(study: Study, gpu: str) -> None:
    """Print the resources that each run of a GPU study needs."""
    from pipelines.cli.budget import describe_assumptions, plan_arms, plan_text
    from pipelines.runs.resources.gpu_plan import GPUS

    for plan in plan_arms(study, GPUS[gpu]):
        print(f"\n{plan_text(plan)}")
    print(f"\n{describe_assumptions(GPUS[gpu])}")
