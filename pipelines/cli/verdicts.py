"""`opd study verdicts`: print every decided statement of a study, with its numbers in readable units."""

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.cli.layout import wrap_text
from pipelines.cli.names import describe_unknown, resolve_study
from pipelines.cli.options import STUDY, store_of
from pipelines.store.objects import Store
from pipelines.studies.catalog import study_arg
from pipelines.studies.study import Study

if TYPE_CHECKING:
    import polars as pl

    from pipelines.statistics.metrics import Unit

STATUSES = ("fails", "undecided", "holds")  # in the order they are printed in
UNSCALED = ("locking",)  # similarities are in [0, 1], and shown so
INDENT = " " * 11  # as wide as the longest status, and two


def add_parser(parts: Any) -> None:
    """Add `opd study verdicts` to the commands of `opd study`."""
    top = parts.add_parser(
        "verdicts",
        help="every statement about a study: whether it holds, its numbers, its control",
        description="Every statement that was decided about a study, those that fail first: the difference over seeds "
        "with its 95 % interval, the same of its control, and what others report.",
    )
    top.add_argument("name", metavar="NAME", help=STUDY)
    top.add_argument("--suite", action="append", default=[], metavar="S", help="only of this suite; repeatable")
    top.add_argument("--status", metavar="S,S", help=f"only these of {', '.join(STATUSES)}")
    top.add_argument("--csv", action="store_true", help="the rows of the table verdicts, with all columns, as CSV")
    top.add_argument("--out", metavar="URI", help="another store than OPD_STORE or .opd/store")
    top.set_defaults(command=show_verdicts)


def show_verdicts(args: argparse.Namespace) -> int:
    study, store = resolve_study(args.name), store_of(args)
    for suite in args.suite:
        study.arms(suite)
    chosen = [status.strip() for status in args.status.split(",")] if args.status else list(STATUSES)
    for status in chosen:
        if status not in STATUSES:
            raise describe_unknown("--status names", status, STATUSES, "known")
    rows = read_verdicts(store, study, args.suite or list(study.suites))
    if rows.is_empty():
        raise ValueError(
            f"{store.uri} holds no verdicts of study {study.name}: run `opd study run {study_arg(study.name)}`"
        )
    rows = rows.filter(rows["status"].is_in(chosen))
    if args.csv:
        print(rows.write_csv(), end="")
        return 0
    printed_notes: set[str] = set()
    for suite in dict.fromkeys(rows["suite"]):
        of_suite = rows.filter(suite=suite)
        print(f"{study.name}, {suite}: {count_statements(of_suite)}\n")
        for status in STATUSES:
            for row in of_suite.filter(status=status).iter_rows(named=True):
                print(f"{describe_statement(row, printed_notes)}\n")
    return 0


def read_verdicts(store: Store, study: Study, suites: Sequence[str]) -> "pl.DataFrame":
    """Read the rows of the table `verdicts` for these suites of a study."""
    import polars as pl

    from pipelines import lake

    rows = lake.scan("verdicts", store.uri).filter(pl.col("study") == study.name, pl.col("suite").is_in(list(suites)))
    return rows.collect()


def count_statements(rows: "pl.DataFrame") -> str:
    """`51 statements: 35 hold, 1 fails, 15 undecided`."""
    counted = {status: int((rows["status"] == status).sum()) for status in ("holds", "fails", "undecided")}
    verbs = {"holds": ("holds", "hold"), "fails": ("fails", "fail"), "undecided": ("undecided", "undecided")}
    parts = [f"{count} {verbs[status][count != 1]}" for status, count in counted.items() if count]
    return f"{len(rows)} statement{'' if len(rows) == 1 else 's'}: {', '.join(parts)}"


def describe_statement(row: dict[str, Any], printed_notes: set[str]) -> str:
    """One statement in wrapped lines. said: notes that are already printed; the notes of this statement are added."""
    seeds = f"{row['seeds']} seed{'' if row['seeds'] == 1 else 's'}"
    power = ""
    if row["status"] == "undecided" and row["detectable"] is not None:
        power = f"; these find {_change(row, row['detectable']).lstrip('+')} with 80 % power"
    parts = [f"difference {format_difference(row)} over {seeds}{power}"]
    if row["control_effect"] is not None:
        says = f": {row['control_says']}" if row["control_says"] else ""
        numbers = _change(row, row["control_effect"], row["control_low"], row["control_high"])
        parts.append(f"control {numbers}{says} ({row['control']})")
    if row["paper"] and row["paper"] != "not reported":
        parts.append(f"reported {row['paper']}")
    if row["status"] != "holds":
        new = [
            sentence for sentence in re.split(r"(?<=\.) (?=[A-Z])", row["note"] or "") if sentence not in printed_notes
        ]
        printed_notes.update(new)
        parts += [" ".join(new)] if any(new) else []
    return "\n".join([wrap_text(row["claim"], f"{row['status']:<11}"), *(wrap_text(part, INDENT) for part in parts)])


def format_difference(row: dict[str, Any]) -> str:
    """The row's difference and its interval in readable units: `-4.3 [-4.6, -4.0] points`."""
    return _change(row, row["effect"], row["low"], row["high"])


def _change(row: dict[str, Any], effect: float, low: float | None = None, high: float | None = None) -> str:
    from pipelines.statistics.numbers import format_change

    return format_change(effect, low, high, unit_of(row["metric"]))


def unit_of(metric: str) -> "Unit":
    """The unit in which the page shows a metric, from its column's unit: `table.column, ...` as in the table
    `verdicts`.
    """
    from pipelines import lake

    table, _, column = metric.partition(",")[0].partition(".")
    if table not in lake.TABLES or table in UNSCALED:
        return ""
    units = {each.name: each.unit for each in lake.TABLES[table].columns}
    known: dict[str, Unit] = {"fraction": "percent", "deg": "deg"}
    return known.get(units.get(column, ""), "")
