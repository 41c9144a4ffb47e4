"""The measurement of one step of one matrix: its rows by table, and its subspaces for comparisons with other steps.

Every row holds step, the table's own columns, the stored dtype and the method with the engine's version.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from opd_ops.geometry import VERSION, locking
from opd_ops.geometry.update import Subspaces

Choice = Callable[[Sequence[int]], Collection[tuple[int, int]]]  # pairs of steps, the earlier first
Tables = dict[str, list[tuple[str, dict]]]  # (method, row) by table


@dataclass(frozen=True)
class Snapshot:
    """One step of one matrix. subspaces: by view, for `locking`. dtype: stored dtype. problem: why rows are null."""

    step: int
    dtype: str
    rows: dict[str, list[dict]]
    subspaces: dict[str, Subspaces] = field(default_factory=dict)
    problem: str | None = None


def locking_rows(taken: list[Snapshot], wanted: Collection[tuple[int, int]] | None = None) -> list[dict]:
    """Rows of `locking` for all pairs of snapshots, or the wanted pairs of steps, from their stored subspaces."""
    table = locking_columns(taken, None if wanted is None else lambda steps: wanted)
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def locking_columns(taken: list[Snapshot], choose: Choice | None = None) -> locking.Columns:
    """Columns of `locking` from the subspaces of snapshots.

    choose: maps ascending steps to the pairs to compare; None compares all. It is called with all steps of a view and
    with the steps that have a subspace; the pairs of both calls are compared.
    """
    whole: locking.Columns = {name: [] for name in (*locking.COLUMNS, "dtype", "method")}
    for view in ("bf16", "master"):
        updates = [(snapshot.step, snapshot.subspaces[view]) for snapshot in taken if view in snapshot.subspaces]
        if not updates:
            continue
        wanted = None
        if choose is not None:
            defined = [step for step, subspaces in updates if None in subspaces.reasons]
            wanted = {*choose([step for step, _ in updates]), *choose(defined)}
        columns = locking.columns(updates, view, wanted)
        stored = {snapshot.step: snapshot.dtype for snapshot in taken}
        columns["dtype"] = [stored[step] for step in columns["step"]]
        columns["method"] = [f"{updates[0][1].method}/{VERSION}"] * len(columns["step"])
        for name, values in columns.items():
            whole[name] += values
    return whole


def tag_method(method: str, rows: list[dict]) -> list[tuple[str, dict]]:
    """The rows as (method, row)."""
    return [(method, row) for row in rows]


def complete_row(step: int, columns: dict, stored: str, method: str) -> dict:
    """A row with step, dtype and method added. stored: the snapshot's dtype."""
    return {"step": step, **columns, "dtype": stored, "method": f"{method}/{VERSION}"}


def require_finite(tables: Tables) -> None:
    """Errors: ArithmeticError with the first value that is NaN or infinite."""
    for table, rows in tables.items():
        for _, row in rows:
            for column, value in row.items():
                if isinstance(value, list):
                    finite = all(math.isfinite(number) for number in value if isinstance(number, float))
                else:
                    finite = not isinstance(value, float) or math.isfinite(value)
                if not finite:
                    raise ArithmeticError(f"{table}.{column} is not finite: {value}")
