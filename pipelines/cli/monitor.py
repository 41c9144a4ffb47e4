"""`opd monitor`: compare a run with the band of reference runs, once or while it trains."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.cli.layout import stack_table, wrap_text
from pipelines.cli.names import list_registered, resolve_recipe, resolve_run
from pipelines.cli.options import Commands, add_workers, open_session, parse_address, require_workers, store_of
from pipelines.store.objects import Store

if TYPE_CHECKING:
    import polars as pl

    from pipelines.runs.geometry.monitor import Guardrails, WatchedRun

LEFT = 4  # exit code of a run that left its band
EXIT_CODES = (
    "Exit codes: 0 the run stays inside its band, or there is no verdict; 2 bad input, said in one line; 3 a weight is "
    f"NaN or infinite; {LEFT} the run left its band: two consecutive snapshots outside it in one quantity."
)


def register(commands: Commands) -> None:
    top = commands.add_parser("monitor", help="hold a run against the band of reference runs")
    top.description = (
        "Compare the update of a run with what reference runs were like at the same relative norm: its stable rank and "
        "how that changes, and how far its leading 16 input directions are those of an earlier snapshot and of its "
        "projected end; its norm at the same step. Rows land in the table monitor."
    )
    top.epilog = (
        f"Example: opd monitor --trajectory ./checkpoints --base ./base --against tiny.opd --watch. {EXIT_CODES}"
    )
    top.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="a run of the store, complete or in training: STUDY.ARM[/SEED], or an import's name; with --trajectory, "
        "what its checkpoints are called (default: from the base's stamp)",
    )
    top.add_argument("--seed", type=int, metavar="N", help="of the run (default: the only one, or 0)")
    top.add_argument(
        "--against",
        action="append",
        required=True,
        metavar="NAME",
        help="recipe whose complete runs, but for the run itself, are the reference; repeat for more",
    )
    top.add_argument("--view", choices=("bf16", "master"), help="what is shown and decides (default: the widest)")
    top.add_argument("--quantity", metavar="Q,Q", help="only these are shown and decide (default: all)")
    top.add_argument(
        "--trajectory",
        type=parse_address,
        metavar="PREFIX",
        help="measure the checkpoints under a folder or URI prefix",
    )
    top.add_argument(
        "--base",
        type=parse_address,
        metavar="REF",
        help="with --trajectory, the weights it began with (default: its step 0)",
    )
    top.add_argument(
        "--watch", action="store_true", help="with --trajectory, wait for checkpoints until the run leaves its band"
    )
    top.add_argument("--interval", type=float, metavar="S", help="seconds between looks with --watch (default: 30)")
    top.add_argument("--until", type=int, metavar="STEP", help="with --watch, end after this step")
    top.add_argument("--out", metavar="URI", help="the store (default: OPD_STORE or .opd/store)")
    add_workers(top, 0)
    top.set_defaults(command=monitor_run)


@dataclass(frozen=True)
class Asked:
    """The store, and the quantities that decide."""

    store: Store
    against: list[str]
    quantities: tuple[str, ...]
    view: str | None
    serial: bool


def monitor_run(args: argparse.Namespace) -> int:
    judging_options = _check_options(args)
    with open_session(args):
        if args.trajectory is None:
            return _judge_once(judging_options, args.name, args.seed)
        return _follow(judging_options, args)


def _check_options(args: argparse.Namespace) -> Asked:
    """Check the options. Errors: ValueError in one line for options that contradict each other."""
    from pipelines.regimes.readings import QUANTITIES

    if args.name is None and args.trajectory is None:
        raise ValueError("no run; name one of the store, or give --trajectory PREFIX with checkpoints")
    for option, needed in (("base", "trajectory"), ("watch", "trajectory"), ("interval", "watch"), ("until", "watch")):
        if getattr(args, option) not in (None, False) and not getattr(args, needed):
            raise ValueError(f"--{option} goes with --{needed}; add --{needed}, or leave --{option} out")
    if args.interval is not None and not 0 < args.interval < float("inf"):
        raise ValueError(f"--interval {args.interval:g} is not a number of seconds above 0")
    if args.until is not None and args.until < 1:
        raise ValueError(f"--until {args.until} is not a step from 1 up")
    require_workers(args)
    quantities = tuple(part.strip() for part in args.quantity.split(",")) if args.quantity else QUANTITIES
    if unknown := [name for name in quantities if name not in QUANTITIES]:
        raise ValueError(f"--quantity names {unknown[0]!r}; known: {', '.join(QUANTITIES)}")
    store = store_of(args)
    runs = list_registered(store)
    against = [resolve_recipe(name, runs, f"{store.uri} holds no reference run") for name in args.against]
    return Asked(store, against, quantities, args.view, args.workers == 0)


def _judge_once(judging_options: Asked, name: str, given_seed: int | None) -> int:
    from pipelines.runs.geometry.monitor import calibrate_bands, judge_run, watch_run, write_rows

    recipe, seed = resolve_run(judging_options.store, name, given_seed, list_registered(judging_options.store), 0)
    run = watch_run(judging_options.store, recipe, seed, serial=judging_options.serial)
    guardrails = calibrate_bands(
        judging_options.store,
        judging_options.against,
        without=(run.recipe, run.seed),
        quantities=judging_options.quantities,
        serial=judging_options.serial,
    )
    rows = judge_run(run, guardrails)
    write_rows(judging_options.store, run, rows)
    return _end(judging_options, run, _deciding(judging_options, run, rows), guardrails)


def _follow(judging_options: Asked, args: argparse.Namespace) -> int:
    """Measure, judge and print checkpoints as they appear; with --watch, until the run leaves its band."""
    from pipelines.regimes.bands import find_trips
    from pipelines.runs.external.imports import measure_import, plan_import
    from pipelines.runs.geometry.monitor import TABLES, calibrate_bands, judge_run, watch_run, write_rows
    from pipelines.studies.study import Measurement

    if args.watch:
        judging_options.store.require_writable()
    # Checked before the command waits for a checkpoint.
    guardrails = calibrate_bands(
        judging_options.store,
        judging_options.against,
        quantities=judging_options.quantities,
        serial=judging_options.serial,
    )
    outcome = None
    for base, snapshots in _batches(args):
        imported = plan_import(judging_options.store, base, snapshots, Measurement(tables=TABLES), args.name)
        measure_import(imported, serial=judging_options.serial)
        run = watch_run(judging_options.store, imported.recipe, serial=judging_options.serial)
        rows = judge_run(run, guardrails)
        write_rows(judging_options.store, run, rows)
        outcome = run, _deciding(judging_options, run, rows)
        if args.watch:
            for step, _ in snapshots:
                print(f"{run}: step {step} {_describe_snapshot(outcome[1], step)}", flush=True)
        if find_trips(outcome[1]):
            break
    assert outcome is not None  # `until` is a step from 1 up, and a folder without a snapshot is refused
    return _end(judging_options, *outcome, guardrails)


def _batches(args: argparse.Namespace) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Yield the base and its snapshots (step >= 1, ref): all at once, or as they become ready."""
    from pipelines.runs.external.checkpoint_folder import list_checkpoints
    from pipelines.runs.external.watching import INTERVAL, wait_for_checkpoints

    if not args.watch:
        checkpoints = list_checkpoints(args.trajectory, args.base)
        yield checkpoints.base, checkpoints.snapshots
        return
    base = args.base
    for ready in wait_for_checkpoints(args.trajectory, interval=args.interval or INTERVAL, until=args.until):
        base = base or dict(ready).get(0)
        if base is None:
            raise ValueError(f"{args.trajectory} holds no step 0; name the weights it began with as --base REF")
        if snapshots := [(step, ref) for step, ref in ready if step > 0]:
            yield base, snapshots


def _deciding(judging_options: Asked, run: "WatchedRun", rows: "pl.DataFrame") -> "pl.DataFrame":
    """The rows of the view and the quantities that decide."""
    return rows.filter(
        rows["view"] == (judging_options.view or run.view), rows["quantity"].is_in(judging_options.quantities)
    )


def _describe_snapshot(rows: "pl.DataFrame", step: int) -> str:
    """Describe one snapshot in a few words."""
    now = rows.filter(rows["step"] == step)
    outside = [f"{_number(row['value'])} {row['quantity']}" for row in now.rows(named=True) if row["inside"] is False]
    if outside:
        return f"is outside: {', '.join(outside)}"
    verdicts = now["inside"].count()
    return f"is inside ({verdicts} of {now.height} quantities have a verdict)" if verdicts else "has no verdict"


def _end(judging_options: Asked, run: "WatchedRun", rows: "pl.DataFrame", guardrails: "Guardrails") -> int:
    """Print the table and one sentence; returns the exit code."""
    from pipelines.regimes.bands import find_trips

    print(f"{stack_table(_lines(rows), keys=2)}\n")
    print(wrap_text(f"band in brackets, * outside; 5 % of healthy runs leave it; of {guardrails}"))
    if (alarms := guardrails.false_alarms(judging_options.view or run.view)) is not None:
        print(wrap_text(f"false alarms: {alarms} of these {len(guardrails.references)} leave the band of the others"))
    print(f"rows: table monitor, recipe == {run.recipe!r}")
    for problem in run.problems:
        print(f"error: {problem}", file=sys.stderr)
    tripped, view = find_trips(rows), judging_options.view or run.view
    if tripped:
        first, *others = tripped
        also = "".join(f"; {trip.quantity} at step {trip.step}" for trip in others)
        expected = f"{_number(first.low)} to {_number(first.high)} was expected"
        print(
            wrap_text(
                f"{run} left the band at step {first.step}, the second snapshot in a row: {first.quantity} is "
                f"{_number(first.value)} and {expected} ({view}){also}"
            )
        )
        return LEFT
    judged = rows.filter(rows["inside"].is_not_null())
    alone = judged.height - int(judged["inside"].sum())
    if judged.is_empty():
        print(wrap_text(f"{run} has no verdict: the references' bands do not reach its norms ({view})"))
    else:
        besides = f", but for {alone} alone" if alone else ""
        counts = f"{judged.height} values of {rows.height} have a verdict{besides}"
        print(wrap_text(f"{run} stays inside the band: {counts} ({view})"))
    return 3 if run.problems else 0


def _lines(rows: "pl.DataFrame") -> list[list[str]]:
    """One line for each snapshot and one cell for each quantity: value [low, high], with a star if it is outside."""
    from pipelines.regimes.readings import QUANTITIES

    quantities = [name for name in QUANTITIES if name in set(rows["quantity"])]
    cells = {(row["step"], row["quantity"]): row for row in rows.rows(named=True)}
    table = [["step", "norm", *quantities]]
    for step in sorted(set(rows["step"])):
        norm = next(row["relative_norm"] for (at, _), row in cells.items() if at == step)
        table.append([str(step), _number(norm), *(_cell(cells.get((step, name))) for name in quantities)])
    return table


def _cell(row: dict | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    if row["inside"] is None:
        return _number(row["value"])
    star = "" if row["inside"] else " *"
    return f"{_number(row['value'])} [{_number(row['low'])}, {_number(row['high'])}]{star}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
