"""Split large tasks in two, so that the last task of a queue is small: the nulls of a matrix, and the rest.

Neither half needs the other: nulls use no base factors, and read their weights again. With seven equal matrices on two
workers a schedule of whole tasks gains 7 / 4 = 1.75. Rows are the same, since parts serve a task by table (`parts`).
"""

from collections.abc import Sequence
from dataclasses import replace

from pipelines.runs.geometry.tasks import MatrixTask

APART = "nulls"
SHARE = 32  # a task is split whose cost is more than the sum of all over this
LEAST = 25_000  # units of cost, half a second at 50 Gflop/s: of less than that the overhead of a second task shows


def split_tasks(work: Sequence[MatrixTask]) -> list[MatrixTask]:
    """The tasks, with large ones split in two with different tables."""
    most = max(LEAST, sum(task.cost for task in work) // SHARE)
    return [piece for task in work for piece in (_pieces(task) if task.cost > most else (task,))]


def _pieces(task: MatrixTask) -> tuple[MatrixTask, ...]:
    rest = tuple(table for table in task.measurement.tables if table != APART)
    if APART not in task.tables or not rest:
        return (task,)
    return tuple(replace(task, measurement=replace(task.measurement, tables=tables)) for tables in (rest, (APART,)))
