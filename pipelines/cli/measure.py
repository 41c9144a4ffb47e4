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

DEFERRED = "nulls"  # needs the final step, so it waits for the end of a run that is watched


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


def measure_checkpoints(given: argparse.Namespace) -> int:
    free_memory.require_address_space()
    if given.watch:
        return _watch(given)
    for option in ("interval", "until"):
        if getattr(given, option) is not None:
            raise ValueError(f"--{option} goes with --watch; add --watch, or leave it out")
    imported = request.plan_request(given)
    with ExitStack() as stack:
        problems = _measure(imported, set(), given, stack)
        done = "were measured already" if imported.fresh else f"measured{_where(given)}"
    steps = ", ".join(map(str, imported.steps))
    print(wrap_text(f"{imported.recipe}: steps {steps} {done}"))
    return _end(imported, problems)


def _watch(given: argparse.Namespace) -> int:
    """Measure what is there and what appears, until --until or an interrupt."""
    from pipelines.runs.external import imports
    from pipelines.runs.external.watching import INTERVAL, wait_for_checkpoints
    from pipelines.store.checkpoint_series import Empty, open_trajectory

    interval = INTERVAL if given.interval is None else given.interval
    if given.trajectory is None:
        raise ValueError("--watch looks under a prefix; give --trajectory PREFIX instead of --snapshot")
    if not 0 < interval < float("inf"):
        raise ValueError(f"--interval {interval:g} is not a number of seconds above 0")
    if given.until is not None and given.until < 1:
        raise ValueError(f"--until {given.until} is not a step from 1 up")
    asked, roles, store = request.parse_measurement(given), request.parse_roles(given), store_of(given)
    now = replace(asked, tables=tuple(table for table in asked.tables if table != DEFERRED))
    if not now.tables:
        raise ValueError(f"--diagnostics {DEFERRED} needs the final step; measure it without --watch")
    with suppress(Empty):  # which is waited on; whatever else is wrong with the prefix is said now
        open_trajectory(given.trajectory)
    base, told, problems, imported = given.base, set[str](), list[str](), None
    with ExitStack() as stack:
        for ready in wait_for_checkpoints(given.trajectory, interval=interval, until=given.until):
            base = base or dict(ready).get(0)
            if base is None:
                raise ValueError(f"{given.trajectory} holds no step 0; name the weights it began with as --base REF")
            for step, ref in ready:
                if step > 0:
                    begun = time.monotonic()
                    imported = imports.plan_import(store, base, [(step, ref)], now, given.name, roles)
                    problems = _measure(imported, told, given, stack)
                    done = "was measured already" if imported.fresh else f"measured in {time.monotonic() - begun:.0f} s"
                    print(f"{imported.recipe}: step {step} {done}", flush=True)
        assert imported is not None and base is not None  # `until` is a step from 1 up
        if now != asked:
            last = imported.steps[-1]
            ref = imported.record["snapshots"][str(last)]["ref"]
            imported = imports.plan_import(store, base, [(last, ref)], asked, given.name, roles)
            problems = _measure(imported, told, given, stack)
            print(f"{imported.recipe}: {DEFERRED} measured against step {last}")
    return _end(imported, problems)


def _measure(imported: "Import", told: set[str], given: argparse.Namespace, stack: ExitStack) -> list[str]:
    """Measure with notes and a progress line; returns the problems, and says those that were not told before.

    stack: takes the session of workers, which is started where there is something to measure.
    """
    from pipelines.progress import Board
    from pipelines.runs.external import imports

    if not imported.fresh:
        imported.store.require_writable()  # before workers are started for nothing
        stack.enter_context(_workers(imported, given))
    for note in imported.notes:
        if note not in told:
            print(wrap_text(f"note: {note}"), flush=True)
    board = Board({"measure": 1.0})
    try:
        problems = imports.measure_import(
            imported,
            serial=given.workers == 0,
            progress=lambda done, of: board.update("measure", done / of, f"{len(imported.work)} matrices"),
        )
    finally:
        board.close()
    for problem in problems:
        if problem not in told:
            print(f"error: {problem}", file=sys.stderr, flush=True)
    told.update(imported.notes, problems)
    return problems


def _workers(imported: "Import", given: argparse.Namespace) -> AbstractContextManager[None]:
    """Processes of this machine where the work is short, else as every command has them."""
    from pipelines.runs.cluster import processes
    from pipelines.runs.external.outline import core_seconds

    if given.workers and processes.suit_work(core_seconds(imported)):
        return processes.process_pool(min(given.workers, len(imported.work)), ("opd_ops.geometry.suite",))
    return open_session(given)


def _where(given: argparse.Namespace) -> str:
    """Where the work is done, unless in this process alone."""
    from pipelines.runs.cluster import processes

    if pool := processes.current_pool():
        return f" in {len(pool.workers)} process{'es' * (len(pool.workers) > 1)}"
    return " on Ray" if given.workers else ""


def _end(imported: "Import", problems: list[str]) -> int:
    """One row a role at the last step, where the page is, and what to ask next."""
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
