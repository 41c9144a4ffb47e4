"""Less work, the same numbers: tables of commit 7416091, before the shared reductions, agree with today's."""

import polars as pl
import pytest

from opd_ops.geometry import TABLES
from tests.bench.agreement import compare_tables, shown
from tests.opd_ops.geometry import before


def frames(rows):
    """Tables as frames; their matrix is one."""
    return {
        table: pl.DataFrame([{"matrix": "a", **row} for row in rows[table]], infer_schema_length=None)
        for table in TABLES
    }


@pytest.mark.parametrize("name", before.SHAPES)
def test_every_value_agrees_with_that_of_the_older_commit_within_both_bounds(name):
    old, new = frames(before.stored()[name]), frames(before.tables(name).rows)
    compared = compare_tables(old, new)
    assert all(table.agrees for table in compared), shown(compared)
    assert all(table.rows and table.before == table.after == 0 for table in compared)
    assert sum(column.values for table in compared for column in table.columns) > 200


def test_bounds_of_leading_subspaces_are_tighter_than_before():
    old, new = before.stored()["large"]["locking"], before.tables("large").rows["locking"]
    worst = [max(row["error"] for row in rows if row["k"] == 16) for rows in (old, new)]
    assert worst[0] > 0.1, "the rounding of the f32 Gram matrix was nearly as large as the gap"
    assert worst[1] < worst[0] / 10
