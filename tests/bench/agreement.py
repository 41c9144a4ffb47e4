"""Whether two measurements of the same weights agree: every stored value within the bounds stored beside it.

    |before - after| <= bound(before) + bound(after)

A row is found by its matrix, step, view and the table's own keys (KEYS). The bound of a value is what its table says:

    an error column   BOUNDS, or the column's name with _error; for a list, the bound on each entry
    a formula         singular_shift.nss_k = ||shifts|| / ||sigma||: sqrt(k) error / ||sigma||
                      update_norm.spectral_norm = F stable_rank^-1/2: half the relative error of stable_rank
                      nulls.hill = 1 / mean log ratio: HILL times its square, as the first-order bound of the table hill
    a tolerance       where neither side has the above: absolute (ABSOLUTE) or relative (RELATIVE; whole numbers are
                      equal, other numbers within ROUNDING)

Rows that only one side has are counted, and so are values that are null or too few on one side. What is no value of the
weights is not compared: bounds, the certificate's margin and iterations, methods, reasons and facts of the run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from opd_ops.geometry import TABLES
from pipelines import lake
from pipelines.lake.schemas.column import DEPENDS_ON
from pipelines.statistics.numbers import align_columns
from pipelines.store.objects import Store

ROW = ("matrix", "step", "view")
KEYS = {
    "rotation": ("side", "k"),
    "singular_shift": ("k",),
    "localization": ("mask", "alpha"),
    "hill": ("k",),
    "locking": ("step_other", "side", "k"),
    "nulls": ("null",),
}
BOUNDS = {
    "rotation": dict.fromkeys(("mean_deg", "rms_deg", "max_deg"), "error_deg") | {"angles_deg": "angle_error_deg"},
    "singular_shift": dict.fromkeys(("shifts", "largest"), "error"),
    "spectral_drift": {"nss": "error"},
    "hill": {"hill": "error"},
    "locking": {"similarity": "error"},
}
ROUNDING = 1e-6  # relative, of what is computed in f32 from exact entries
RELATIVE = {
    "update_support": {"unchanged": 0.0},
    "localization": {"density": 0.0},
    "nulls": {"stable_rank": 5e-5},  # of f32 spectra
}
HILL = 1e-4  # relative error of a ratio of f32 singular values: twice `gram.rounding` at 12,288 columns
ABSOLUTE = {
    "localization": {"overlap": 1e-5},  # entries within rounding of the mask's threshold trade places
    "nulls": dict.fromkeys(("similarity_output", "similarity_input"), 1e-3),  # of subspaces that may have no gap
}
ASIDE = {"seed", "layer", "delta", "iterations", *(column.name for column in DEPENDS_ON)}  # numbers that are no values
AFTER = " after"  # ends the names of one side's columns


@dataclass
class Column:
    """One column of a table, in rows of both sides. share: the largest difference over its bound; inf above a bound 0.

    values: compared. difference, bound, where (keys): of the row with that share. largest: difference of any row, which
    tells more than the share where bounds say nothing. lost, gained: rows whose other side has no value, or fewer of
    them in its list.
    """

    name: str
    values: int = 0
    share: float = 0.0
    difference: float = 0.0
    bound: float = 0.0
    where: dict[str, Any] = field(default_factory=dict)
    largest: float = 0.0
    lost: int = 0
    gained: int = 0


@dataclass(frozen=True)
class Agreement:
    """One table of two measurements. rows: of both; before, after: of one alone."""

    table: str
    rows: int
    before: int
    after: int
    columns: list[Column]

    @property
    def agrees(self) -> bool:
        """Whether all values of both are within their bounds and none was lost; rows may be of one side alone."""
        return all(column.share <= 1.0 and not column.lost for column in self.columns)


def compare(before: Store, after: Store, recipe: str, seed: int = 0) -> list[Agreement]:
    """Compare the tables of one run in two stores. Errors: ValueError where keys repeat or a table is damaged."""
    sides = [
        {table: lake.read_partition(store, table, recipe=recipe, seed=seed) for table in TABLES}
        for store in (before, after)
    ]
    return compare_tables(*({table: rows for table, rows in side.items() if rows is not None} for side in sides))


def compare_tables(before: Mapping[str, pl.DataFrame], after: Mapping[str, pl.DataFrame]) -> list[Agreement]:
    """Compare tables by name; those of one side alone count with all their rows.

    Errors: ValueError where keys repeat.
    """
    names = [table for table in TABLES if table in before or table in after]
    return [_table(name, before.get(name), after.get(name)) for name in names]


def shown(agreements: Sequence[Agreement]) -> str:
    """As a table: per table and column how many values were compared, and the largest difference over its bound."""
    lines = [["table", "column", "values", "worst / bound", "difference", "bound", "largest", "", "where"]]
    for found in agreements:
        lines.append([found.table, "rows", str(found.rows), "", "", "", "", "", _alone(found)])
        for column in found.columns:
            verdict = "agree" if column.share <= 1.0 and not column.lost else "DIFFER"
            numbers = (f"{number:.2g}" for number in (column.share, column.difference, column.bound, column.largest))
            nulls = [f"{count} {which}" for which, count in (("lost", column.lost), ("gained", column.gained)) if count]
            keys = [f"{name} {value}" for name, value in column.where.items()] if column.share else []
            lines.append(["", column.name, str(column.values), *numbers, verdict, ", ".join(nulls + keys)])
    return align_columns(lines)


def _alone(found: Agreement) -> str:
    return "" if found.before == found.after == 0 else f"{found.before} only before, {found.after} only after"


def _table(table: str, before: pl.DataFrame | None, after: pl.DataFrame | None) -> Agreement:
    if before is None or after is None:
        return Agreement(table, 0, 0 if before is None else before.height, 0 if after is None else after.height, [])
    keys = [key for key in (*ROW, *KEYS.get(table, ())) if key in before.columns and key in after.columns]
    old, new = _by_key(table, before, keys), _by_key(table, after, keys)
    both = [key for key in old if key in new]
    columns = [Column(name) for name in before.columns if name in after.columns and _is_value(name, before, keys)]
    for key in both:
        for column in columns:
            _count(table, column, old[key], new[key], dict(zip(keys, key, strict=True)))
    return Agreement(table, len(both), len(old) - len(both), len(new) - len(both), columns)


def _by_key(table: str, frame: pl.DataFrame, keys: Sequence[str]) -> dict[tuple, dict[str, Any]]:
    rows = {tuple(row[key] for key in keys): row for row in frame.iter_rows(named=True)}
    if repeated := frame.height - len(rows):
        raise ValueError(f"{table} has {repeated} rows whose {', '.join(keys)} repeat; compare one run at a time")
    return rows


def _is_value(name: str, frame: pl.DataFrame, keys: Sequence[str]) -> bool:
    dtype = frame.schema[name]
    numeric = dtype.is_numeric() or (isinstance(dtype, pl.List) and dtype.inner.is_numeric())
    return numeric and name not in keys and name not in ASIDE and not name.endswith(("error", "error_deg"))


def _count(table: str, column: Column, old: dict[str, Any], new: dict[str, Any], where: dict[str, Any]) -> None:
    """Take one row's value of a column into account; a list has a value where any of its entries is one."""
    before, after = (_entries(row[column.name]) for row in (old, new))
    pairs = [(one, other) for one, other in zip(before, after, strict=False) if None not in (one, other)]
    column.lost += sum(entry is not None for entry in before) > len(pairs)
    column.gained += sum(entry is not None for entry in after) > len(pairs)
    if not pairs:
        return
    column.values += 1
    bounds = [bound for row in (old, new) if (bound := _bound(table, column.name, row)) is not None]
    bound = sum(bounds) if bounds else _tolerance(table, column.name, pairs)
    differences = (abs(one - other) for one, other in pairs)
    difference = max(math.inf if math.isnan(one) else one for one in differences)
    column.largest = max(column.largest, difference)
    share = difference / bound if bound else (math.inf if difference else 0.0)
    if not column.where or share > column.share:
        column.share, column.difference, column.bound, column.where = share, difference, bound, where


def _entries(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _bound(table: str, name: str, row: dict[str, Any]) -> float | None:
    """The bound that a row holds of one of its values; None where it holds none."""
    if (table, name) == ("singular_shift", "nss_k"):
        moved = math.hypot(*row["shifts"])
        return math.sqrt(row["k"]) * row["error"] * (row["nss_k"] / moved if moved else 0.0)
    if (table, name) == ("update_norm", "spectral_norm"):
        relative = (row["stable_rank_error"] or 0.0) / row["stable_rank"] if row["stable_rank"] else 0.0
        return row["spectral_norm"] * (relative / 2 + ROUNDING)
    return row.get(BOUNDS.get(table, {}).get(name, f"{name}_error"))


def _tolerance(table: str, name: str, pairs: Sequence[tuple[Any, Any]]) -> float:
    if name in ABSOLUTE.get(table, {}):
        return ABSOLUTE[table][name]
    numbers = [number for pair in pairs for number in pair]
    if (table, name) == ("nulls", "hill"):  # 1 / mean log ratio: to first order off by its square times theirs
        return 2 * HILL * max(numbers) ** 2
    usual = 0.0 if all(isinstance(number, int) for number in numbers) else ROUNDING
    return RELATIVE.get(table, {}).get(name, usual) * max(map(abs, numbers))
