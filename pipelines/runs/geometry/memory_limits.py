"""Fit measuring tasks into a worker's memory: shrink them if that changes no row, else refuse them in one line.

Weights other than projections are compared in smaller blocks, down to SMALLEST. A projection is held whole, and the
algorithm fixes what a table needs; if the missing tables do not fit, the error says which to leave out. Ray decides how
many workers run at once, from the memory that each requests.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from pipelines.runs.cluster.free_memory import format_gb
from pipelines.runs.cluster.worker_failures import warn
from pipelines.runs.geometry.parts import list_entries, missing_units
from pipelines.runs.geometry.tasks import MatrixTask

GRAIN = 2**26  # bytes in which memory is asked for: tasks that ask for the same share their workers' leases
SMALLEST = 2**20  # bytes of the smallest block
LARGE = (("nulls",), ("nulls", "locking"), ("nulls", "locking", "spectral_drift"))  # tables in the order of their need


def fit_tasks(work: Sequence[MatrixTask], room: float) -> list[MatrixTask]:
    """The tasks, fitted to a worker with `room` bytes. Errors: ValueError naming a matrix that does not fit."""
    return [task if task.memory <= room else _fit_task(task, room) for task in work]


def requested_memory(task: MatrixTask) -> int:
    """Bytes to request from Ray."""
    return -(-task.memory // GRAIN) * GRAIN


def shrink_task(task: MatrixTask) -> MatrixTask:
    """The task with a quarter of its block size; its rows are the same."""
    if task.projection or task.at_once <= SMALLEST:
        return task
    return replace(task, block=max(SMALLEST, task.at_once // 4), needs=0)


def _fit_task(task: MatrixTask, room: float) -> MatrixTask:
    missing = {table for tables in missing_units(task, list_entries(task)).values() for table in tables}
    needs = task.memory_of(missing)
    if needs <= room:  # the rest was measured before
        return replace(task, needs=needs)
    tried = task
    while not task.projection and tried.at_once > SMALLEST:
        tried = shrink_task(tried)
        if (less := tried.memory_of(missing)) <= room:
            warn(
                f"{task.name}: {format_gb(needs)} of memory are needed and a worker can have {format_gb(room)}; it is "
                f"compared in blocks of {format_gb(tried.at_once)}, which need {format_gb(less)}"
            )
            return replace(tried, needs=less)
    raise ValueError(
        f"{task.name} needs {format_gb(needs)} of memory and a worker can have {format_gb(room)}; "
        f"{_tables_to_skip(task, missing, room)}use a machine with more memory (RAY_ADDRESS names a cluster)"
    )


def _tables_to_skip(task: MatrixTask, missing: Collection[str], room: float) -> str:
    """Which tables to leave out, if that is enough."""
    for tables in LARGE:
        rest = [table for table in missing if table not in tables]
        if rest and task.projection and (needs := task.memory_of(rest)) <= room:
            left = " and ".join(table for table in tables if table in missing)
            return f"leave out {left}, which is then {format_gb(needs)}, or "
    return ""
