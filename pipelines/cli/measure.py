"""`opd measure`: measure checkpoints that were trained elsewhere, once or as they appear."""

import argparse
import sys
import time
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.cli import request
from pipelines.cli.layout import wrap_text
from pipelines.cli.names import IMPORTED
from pipelines.cli.options import Commands, open_session, store_of
from pipelines.cli.role_table import role_lines
from pipelines.cli.study_summary import describe_page
from pipelines.runs.cluster import free_memory
from pipelines.store.objects import Unwritable

if TYPE_CHECKING:
    from pipelines.runs.external.imports import Import

DEFERRED = "nulls"  # needs the final step, so it cannot be measured while a run is watched


def register(commands: Commands) -> None:
    top = commands.add_parser("measure", help="measure checkpoints that were trained elsewhere")
    top.description = (
        f"Measure how the weights of your own checkpoints moved away from their base. {request.REF} Rows land in the "
        "store's tables under recipe=external.NAME, seed=0. What is measured is kept: a second call with the same name "
        "goes on where the first was stopped, and adds snapshots."
    )
    top.epilog = "Example: opd measure --base ./base --snapshot 100=./step-100 --snapshot 200=./step-200 --name mine"
    request.add_options(top)
    top.add_argument(
        "--watch", action="store_true", help="go on measuring checkpoints as they appear under --trajectory"
    )
    top.add_argument("--interval", type=float, metavar="S", help="seconds between looks with --watch (default: 30)")
    top.add_argument("--until", type=int, metavar="STEP", help="with --watch, end after this step")
    top.set_defaults(command=measure_checkpoints)


def measure_checkpoints(args: argparse.Namespace) -> int:
    free_memory.require_address_space()
    if args.watch:
        return _watch(args)
    for option in ("interval", "until"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option} goes with --watch; add --watch, or leave it out")
    imported = request.plan_request(args)
    with ExitStack() as stack:
        problems = _measure(imported, set(), args, stack)
        done = "were measured already" if imported.fresh else f"measured{_where(args)}"
    steps = ", ".join(map(str, imported.steps))
    print(wrap_text(f"{imported.recipe}: steps {steps} {done}"))
    return _end(imported, problems)


def _watch(args: argparse.Namespace) -> int:
    """Measure present and new checkpoints until --until is reached or the command is interrupted."""
    from pipelines.runs.external import imports
    from pipelines.runs.external.watching import INTERVAL, wait_for_checkpoints
    from pipelines.store.checkpoint_series import Empty, open_trajectory

    interval = INTERVAL if args.interval is None else args.interval
    if args.trajectory is None:
        raise ValueError("--watch looks under a prefix; give --trajectory PREFIX instead of --snapshot")
    if not 0 < interval < float("inf"):
        raise ValueError(f"--interval {interval:g} is not a number of seconds above 0")
    if args.until is not None and args.until < 1:
        raise ValueError(f"--until {args.until} is not a step from 1 up")
    measurement, roles, store = request.parse_measurement(args), request.parse_roles(args), store_of(args)
    now = replace(measurement, tables=tuple(table for table in measurement.tables if table != DEFERRED))
    if not now.tables:
        raise ValueError(f"--diagnostics {DEFERRED} needs the final step; measure it without --watch")
    with suppress(Empty):  # which is waited on; whatever else is wrong with the prefix is said now
        open_trajectory(args.trajectory)
    base, reported, problems, imported = args.base, set[str](), list[str](), None
    with ExitStack() as stack:
        for ready in wait_for_checkpoints(args.trajectory, interval=interval, until=args.until):
            base = base or dict(ready).get(0)
            if base is None:
                raise ValueError(f"{args.trajectory} holds no step 0; name the weights it began with as --base REF")
            for step, ref in ready:
                if step > 0:
                    begun = time.monotonic()
                    imported = imports.plan_import(store, base, [(step, ref)], now, args.name, roles)
                    problems = _measure(imported, reported, args, stack)
                    done = "was measured already" if imported.fresh else f"measured in {time.monotonic() - begun:.0f} s"
                    print(f"{imported.recipe}: step {step} {done}", flush=True)
        assert imported is not None and base is not None  # `until` is a step from 1 up
        if now != measurement:
            last = imported.steps[-1]
            ref = imported.record["snapshots"][str(last)]["ref"]
            imported = imports.plan_import(store, base, [(last, ref)], measurement, args.name, roles)
            problems = _measure(imported, reported, args, stack)
            print(f"{imported.recipe}: {DEFERRED} measured against step {last}")
    return _end(imported, problems)


def _measure(imported: "Import", reported: set[str], args: argparse.Namespace, stack: ExitStack) -> list[str]:
    """Measure, and print notes and a progress line; returns the problems, and prints those that are new.

    stack: receives the Ray session, which starts only if there is something to measure.
    """
    from pipelines.progress import Board
    from pipelines.runs.external import imports

    if not imported.fresh:
        imported.store.require_writable()  # checked before workers start
        stack.enter_context(_workers(imported, args))
    for note in imported.notes:
        if note not in reported:
            print(wrap_text(f"note: {note}"), flush=True)
    board = Board({"measure": 1.0})
    try:
        problems = imports.measure_import(
            imported,
            serial=args.workers == 0,
            progress=lambda done, of: board.update("measure", done / of, f"{len(imported.work)} matrices"),
        )
    finally:
        board.close()
    for problem in problems:
        if problem not in reported:
            print(f"error: {problem}", file=sys.stderr, flush=True)
    reported.update(imported.notes, problems)
    return problems


def _workers(imported: "Import", args: argparse.Namespace) -> AbstractContextManager[None]:
    """Use processes on this machine for short work, and the usual workers otherwise."""
    from pipelines.runs.cluster import processes
    from pipelines.runs.external.outline import core_seconds

    if args.workers and processes.suit_work(core_seconds(imported)):
        return processes.process_pool(min(args.workers, len(imported.work)), ("opd_ops.geometry.suite",))
    return open_session(args)


def _where(args: argparse.Namespace) -> str:
    """Describe where the work runs; empty if it runs in this process."""
    from pipelines.runs.cluster import processes

    if pool := processes.current_pool():
        return f" in {len(pool.workers)} process{'es' * (len(pool.workers) > 1)}"
    return " on Ray" if args.workers else ""


def _end(imported: "Import", problems: list[str]) -> int:
    """Print one row for each role at the last step, the page's address, and the next commands."""
    from pipelines.runs.verdicts import reporting

    store, recipe = imported.store, imported.recipe
    name = recipe.removeprefix(IMPORTED)
    if lines := role_lines(store, recipe, imported.steps[-1]):
        print(f"\n{lines}\n")
    try:
        print("\n".join(describe_page(store, reporting.publish_import(store, recipe), name)))
    except (Unwritable, PermissionError) as error:
        if not imported.fresh:
            raise
        print(f"note: the report is left as it is, since the store takes no writes ({error})")
    print(wrap_text(f"rows: opd tables (recipe == {recipe!r}); which regime it is like: opd regime {name}"))
    return 3 if problems else 0
