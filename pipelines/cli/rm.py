"""`opd rm`: move a run aside, bring it back, or delete it."""

import argparse
import time
from typing import TYPE_CHECKING

from pipelines.cli.layout import wrap_text
from pipelines.cli.names import list_registered, resolve_recipe
from pipelines.cli.options import Commands, ask_confirmation, store_of
from pipelines.store.objects import Store

if TYPE_CHECKING:
    from pipelines.runs.set_aside import Aside

NEWEST = 0  # the run that was moved aside last; numbers start at 1
DIGITS = 9  # of such a number, at most


def register(commands: Commands) -> None:
    top = commands.add_parser("rm", help="move a run aside, bring it back, or delete it")
    top.description = (
        "Move a run aside, with its snapshots, rollouts, tables and records, so that its name is free: to "
        "removed/RECIPE/seed-N/K in the same store, where nothing reads it. A process that is training the run ends at "
        "its next write. Without RUN: what was moved aside."
    )
    top.epilog = "Example: opd rm tiny.opd/0; opd rm tiny.opd/0 --undo; opd rm tiny.opd/0 --delete"
    top.add_argument("run", nargs="?", metavar="RUN", help="RECIPE/SEED, or RECIPE for all its seeds")
    which = top.add_mutually_exclusive_group()
    help_of = "the one that was moved aside last, or the K-th"
    which.add_argument("--undo", nargs="?", type=parse_number, const=NEWEST, metavar="K", help=f"bring back {help_of}")
    which.add_argument(
        "--delete", nargs="?", type=parse_number, const=NEWEST, metavar="K", help=f"delete for good {help_of}"
    )
    top.add_argument("--yes", action="store_true", help="do it without asking")
    top.add_argument("--out", metavar="URI", help="the store (default: OPD_STORE or .opd/store)")
    top.set_defaults(command=run_rm)


def parse_number(text: str) -> int:
    """Parse K of --undo and --delete. Errors: ArgumentTypeError unless it is a whole number from 1 up."""
    if not (text.isascii() and text.isdecimal() and text.strip("0")) or len(text) > DIGITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of a run that was moved aside; they start at 1")
    return int(text)


def run_rm(args: argparse.Namespace) -> int:
    from pipelines.maintenance.inventory import parse_run
    from pipelines.runs import set_aside

    store = store_of(args)
    if args.run is None:
        if args.undo is not None or args.delete is not None:
            raise ValueError("--undo and --delete go with a run; write opd rm RECIPE/SEED --undo")
        return show_aside(store)
    recipe, seed = parse_run(args.run)
    known = dict.fromkeys([*list_registered(store), *store.list("removed")])
    recipe = resolve_recipe(recipe, known, f"{store.uri} holds no run")
    chosen = args.undo or args.delete or None
    if args.undo is not None or args.delete is not None:
        seeds = sorted({aside.seed for aside in set_aside.list_aside(store, recipe, seed)}) if seed is None else [seed]
        if not seeds:
            raise ValueError(f"{store.uri} holds no run {recipe} that was moved aside")
        moved_runs = [set_aside.find_aside(store, recipe, seed, chosen) for seed in seeds]
        return bring_back(store, moved_runs) if args.undo is not None else delete_aside(moved_runs, args.yes)
    seeds = seeds_of(store, recipe) if seed is None else [seed]
    if not seeds:
        raise ValueError(f"{store.uri} holds no run {recipe}; it has {', '.join(store.list('runs')) or 'none'}")
    return 0 if move_aside(store, [(recipe, seed) for seed in seeds], args.yes) else 1


def seeds_of(store: Store, recipe: str) -> list[int]:
    """The seeds of a recipe's runs in the store."""
    from pipelines.runs import set_aside

    numbers = [name.removeprefix("seed-") for name in store.list(f"runs/{recipe}")]
    return sorted(
        int(text) for text in numbers if text.isdecimal() and set_aside.is_registered(store, recipe, int(text))
    )


def move_aside(store: Store, runs: list[tuple[str, int]], yes: bool) -> bool:
    """Ask once, then move runs aside; False if the answer is no. Errors: ValueError for a run that does not exist."""
    from pipelines.runs import set_aside

    for recipe, seed in runs:
        set_aside.require_movable(store, recipe, seed)
        print(describe_run(store, recipe, seed))
    if not ask_confirmation(f"move {'it' if len(runs) == 1 else f'these {len(runs)} runs'} aside?", yes):
        print("nothing was changed")
        return False
    for recipe, seed in runs:
        moved = set_aside.move_aside(store, recipe, seed)
        ways = f"bring it back: opd rm {moved.name} --undo; delete it: opd rm {moved.name} --delete"
        print(wrap_text(f"moved aside to {moved.location()}; {ways}"), flush=True)
    studies = {recipe.partition(".")[0] for recipe, _ in runs}
    for study in sorted(study for study in studies if store.list(f"lake/verdicts/study={study}")):
        print(wrap_text(f"verdicts and report of {study} were made with it; {suggest_remake(store, study)}"))
    return True


def suggest_remake(store: Store, name: str) -> str:
    """The commands that make the verdicts and report of a study again from the remaining measured runs."""
    from pipelines.cli import study as studies
    from pipelines.studies.catalog import find_study, study_arg

    try:
        measured, _ = studies.count_progress(store, find_study(name))
    except ValueError:  # a remaining run has another recipe, or the catalog lacks the study
        measured = 0
    if measured:
        return f"make them again: opd report {study_arg(name)}"
    command = f"opd study run {study_arg(name)}"
    return f"no report can be made of the runs that are left, so both stay as they are until: {command}"


def describe_run(store: Store, recipe: str, seed: int) -> str:
    """Describe the content of a run, when it was last written, and which runs were made from it."""
    from pipelines.cli.plan import format_bytes
    from pipelines.progress import duration
    from pipelines.runs import set_aside

    listing = set_aside.list_run_objects(store, recipe, seed)
    nbytes, written = (
        sum(aside.size for aside in listing.values()),
        max((o.modified for o in listing.values()), default=0),
    )
    line = (
        f"{recipe} seed {seed}: {len(listing):,} objects, {format_bytes(nbytes)}, last written "
        f"{duration(max(0.0, time.time() - written))} ago"
    )
    if children := set_aside.list_children(store, recipe, seed):
        notes = (
            f"made from it: {', '.join(children)}; they stay. What of them is complete is read and measured as "
            "before; what is not goes on only once this run is back"
        )
        line += f"\n{wrap_text(notes, '  ')}"
    return line


def bring_back(store: Store, moved_runs: "list[Aside]") -> int:
    from pipelines.runs import set_aside

    for aside in moved_runs:
        set_aside.bring_back(store, aside.recipe, aside.seed, aside.number)
        print(f"{aside.recipe} seed {aside.seed} is back")
    return 0


def delete_aside(moved_runs: "list[Aside]", yes: bool) -> int:
    from pipelines.cli.plan import format_bytes
    from pipelines.runs import set_aside

    for aside in moved_runs:
        listing = aside.objects()
        print(f"{aside.location()}: {len(listing):,} objects, {format_bytes(sum(o.size for o in listing.values()))}")
    if not ask_confirmation("delete for good?", yes):
        print("nothing was changed")
        return 1
    for aside in moved_runs:
        set_aside.delete(aside)
        print(f"deleted {aside.location()}")
    return 0


def show_aside(store: Store) -> int:
    """Print the runs that were moved aside."""
    from pipelines.cli.plan import format_bytes
    from pipelines.runs import set_aside

    moved_runs = set_aside.list_aside(store)
    for aside in moved_runs:
        listing = aside.objects()
        nbytes = format_bytes(sum(facts.size for facts in listing.values()))
        state = "" if aside.state() == "whole" else f"  ({aside.state()})"
        print(f"{aside.name:<28} {aside.number:>3}  {len(listing):,} objects, {nbytes}{state}")
    if not moved_runs:
        print(f"{store.uri}: nothing was moved aside")
    return 0
