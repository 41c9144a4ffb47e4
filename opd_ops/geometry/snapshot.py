"""One step of one matrix: its rows by table, and what the comparison of two steps needs of it.

Every row holds step, the table's own columns, the dtype that was stored and the method with the engine's version.
"""

import math
from dataclasses import dataclass, field

from opd_ops.geometry import VERSION, locking
from opd_ops.geometry.update import Subspaces

Tables = dict[str, list[tuple[str, dict]]]  # rows by table, each with the method that made it


@dataclass(frozen=True)
class Snapshot:
    """One step of one matrix. subspaces: by view, what locking needs of this step. dtype: what the snapshot stores."""

    step: int
    dtype: str
    rows: dict[str, list[dict]]
    subspaces: dict[str, Subspaces] = field(default_factory=dict)
    problem: str | None = None


def pairs(taken: list[Snapshot], wanted: set[tuple[int, int]] | None = None) -> list[dict]:
    """Rows of `locking` for all pairs of snapshots (or those wanted), from their stored subspaces."""
    rows = []
    for view in ("bf16", "master"):
        held = [one for one in taken if view in one.subspaces]
        if not held:
            continue
        method = held[0].subspaces[view].method
        by_step = {one.step: one for one in held}
        for row in locking.rows([(one.step, one.subspaces[view]) for one in held], view, wanted):
            rows.append(whole(row["step"], row, by_step[row["step"]].dtype, method))
    return rows


def tagged(method: str, rows: list[dict]) -> list[tuple[str, dict]]:
    """Rows of one method."""
    return [(method, row) for row in rows]


def whole(step: int, columns: dict, stored: str, method: str) -> dict:
    """A whole row; stored: the snapshot's dtype."""
    return {"step": step, **columns, "dtype": stored, "method": f"{method}/{VERSION}"}


def require_finite(tables: Tables) -> None:
    """Errors: ArithmeticError naming the first value that is NaN or infinite."""
    for table, rows in tables.items():
        for _, row in rows:
            for column, value in row.items():
                if isinstance(value, list):
                    finite = all(math.isfinite(number) for number in value if isinstance(number, float))
                else:
                    finite = not isinstance(value, float) or math.isfinite(value)
                if not finite:
                    raise ArithmeticError(f"{table}.{column} is not finite: {value}")
