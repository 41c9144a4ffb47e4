"""Measure trajectories: one task per matrix over all its snapshots, on Ray or serially, with the same rows.

A task reads W0 and each snapshot of its matrix by byte range and returns rows, never tensors. It saves results in parts
as they come (`parts`), so a stopped call continues, and new snapshots cost only themselves. Before the first task, the
files of committed snapshots are verified against their manifests (`integrity`).
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import polars as pl

from opd_ops.geometry import VERSION
from opd_ops.recipe import Recipe
from opd_ops.roles import role
from pipelines import lake
from pipelines.lake.lake import partition_key
from pipelines.runs.clock import Clock, write_timing
from pipelines.runs.cluster.attach import use_one_thread
from pipelines.runs.cluster.map_tasks import map_tasks, task_memory_limit
from pipelines.runs.geometry import estimates, records
from pipelines.runs.geometry.memory_limits import fit_tasks, requested_memory, shrink_task
from pipelines.runs.geometry.splitting import split_tasks
from pipelines.runs.geometry.tasks import MatrixTask, Pair, Source
from pipelines.runs.geometry.worker import Found, measure_matrix
from pipelines.store import integrity
from pipelines.store.json_object import parse_object as facts_of
from pipelines.store.matrix import MatrixRef
from pipelines.store.names import repr_short
from pipelines.store.objects import Store
from pipelines.store.tensors import TensorRef
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import TABLES as TABLES  # the tables a measurement can fill
from pipelines.studies.study import Measurement

PHASES = ("measure", "base")
Progress = Callable[[int, int], None]  # work done and in all, in one unit


def largest_first(work: Iterable[MatrixTask]) -> list[MatrixTask]:
    return sorted(work, key=lambda task: (-task.cost, task.name))


def measure_tasks(work: list[MatrixTask], *, serial: bool, progress: Progress = lambda done, of: None) -> Found:
    """Rows of all tasks, which share a measurement, ordered by matrix name, whatever ran first.

    Errors: ValueError in one line, before any row, for a matrix that exceeds every worker's memory, and for a file that
    differs from its manifest.
    """
    pieces = largest_first(split_tasks(fit_tasks(work, task_memory_limit(serial=serial))))
    of = sum(piece.cost for piece in pieces)
    sources = (source for task in work for pair in task.pairs for source in (pair.before, pair.after))
    refs = (source.ref.ref for source in sources if source.ref)
    hash_files = (
        None if serial else partial(map_tasks, integrity.hash_file, serial=False, done=lambda count: progress(0, of))
    )
    proving = integrity.verify_files(integrity.list_files(refs), hash_files)
    path = gemm_path(work)
    results = map_tasks(
        measure_matrix,
        [replace(piece, gemm_path=path) for piece in pieces],
        serial=serial,
        done=lambda cost: progress(cost, of),
        cost=lambda task: task.cost,
        memory=requested_memory,
        name=lambda task: task.name,
        smaller=shrink_task,
    )
    ordered = [results[index] for index in sorted(range(len(pieces)), key=lambda index: pieces[index].name)]
    tables = work[0].measurement.tables if work else ()
    seconds = {
        phase: [sum(found.seconds[phase][i] for found in ordered if phase in found.seconds) for i in range(2)]
        for phase in PHASES
    }
    seconds["measure"] = [total + more for total, more in zip(seconds["measure"], proving, strict=True)]
    return Found(
        {
            table: pl.concat([found.rows[table] for found in ordered if table in found.rows], rechunk=False)
            for table in tables
        },
        list(dict.fromkeys(problem for found in ordered for problem in found.problems)),
        seconds,
        _stale_parts([piece.name for piece in pieces], results),
    )


def _stale_parts(names: list[str], results: list[Found]) -> list[str]:
    """Parts that no task needs; a part that one task found damaged may have been rewritten by another."""
    by_name: dict[str, list[Found]] = {}
    for name, found in zip(names, results, strict=True):
        by_name.setdefault(name, []).append(found)
    return [key for first, *rest in by_name.values() for key in first.stale if all(key in one.stale for one in rest)]


def gemm_path(work: list[MatrixTask]) -> str:
    """The f32 product that all workers use, probed in this process if any matrix is large enough to need it."""
    if all(not task.projection or estimates.dense(task.shape, task.dtype, task.measurement.k) for task in work):
        return "highest"
    from opd_ops.geometry import gemm

    use_one_thread()
    return gemm.choose_path("cpu").path


def book_cpu(clock: Clock, found: Found) -> None:
    """Replace the CPU seconds of this process by those of the workers; base factors are their own phase."""
    clock.seconds["measure"][1] = found.seconds["measure"][1]
    if any(found.seconds["base"]):
        clock.seconds["base"] = found.seconds["base"]


def run_columns(recipe: Recipe, seed: int, steps: int) -> dict[str, Any]:
    """The key columns of a run's rows, and the columns with what the rows depend on."""
    return {
        "study": recipe.study,
        "recipe": recipe.name,
        "seed": seed,
        "objective": recipe.objective.kind,
        "optimizer": recipe.optimizer.name,
        "learning_rate": recipe.optimizer.learning_rate,
        "weight_decay": recipe.optimizer.weight_decay,
        "run_steps": steps,
    }


def list_tasks(
    trajectory: Trajectory, steps: list[int], columns: dict[str, Any], measurement: Measurement
) -> list[MatrixTask]:
    """Tasks for all tensors of a run that the requested tables need, the most expensive first."""
    base, held = trajectory.digest(0), trajectory.refs(0)
    stamps = {step: trajectory.digest(step) for step in steps}
    refs = {step: trajectory.refs(step) for step in steps}
    work = []
    for source, ref in held.items():
        start = _whole_matrix(ref)
        pairs = (
            Pair(step, Source(base, start), Source(stamps[step], _whole_matrix(refs[step][source]))) for step in steps
        )
        work.append(
            MatrixTask(
                store=trajectory.store,
                prefix=trajectory.prefix,
                name=start.name,
                role=start.role,
                shape=start.shape,
                dtype=ref.dtype,
                pairs=tuple(pairs),
                columns=columns | {"matrix": start.name, "layer": start.layer, "role": start.role},
                measurement=measurement,
            )
        )
    return largest_first(task for task in work if task.tables)


def expected_inputs(store: Store, recipe: Recipe, seed: int, measurement: Measurement) -> dict[str, Any]:
    """The inputs that a measurement of this run would record."""
    trajectory = Trajectory(store, recipe.name, seed)
    end = trajectory.end()
    assert end is not None
    return {
        "engine": VERSION,
        "settings": measurement.settings | {"tables": list(measurement.tables)},
        "snapshots": {str(step): trajectory.digest(step) for step in end["snapshots"]},
    }


def is_measured(store: Store, recipe: Recipe, seed: int, measurement: Measurement) -> bool:
    """True when the run's tables exist and were made from its snapshots with these settings and this engine."""
    trajectory = Trajectory(store, recipe.name, seed)
    key = f"{trajectory.prefix}/measured.json"
    if trajectory.end() is None or not store.exists(key):
        return False
    if not all(store.exists(partition_key(table, recipe=recipe.name, seed=seed)) for table in measurement.tables):
        return False
    return records.parse_fields(store, key).get("from") == expected_inputs(store, recipe, seed, measurement)


def measure_run(
    store: Store,
    recipe: Recipe,
    seed: int,
    measurement: Measurement,
    *,
    serial: bool = False,
    progress: Progress = lambda done, of: None,
) -> list[str]:
    """Measure a complete run and write its tables; returns problems (non-finite weights by name)."""
    trajectory = Trajectory(store, recipe.name, seed)
    end = trajectory.end()
    if end is None:
        raise ValueError(f"{trajectory.prefix} is not complete: train it before measuring")
    key = f"{trajectory.prefix}/measured.json"
    if is_measured(store, recipe, seed, measurement):
        return read_problems(store, trajectory)
    clock = Clock()
    with clock.phase("measure"):
        steps = [step for step in end["snapshots"] if step > 0]
        work = list_tasks(trajectory, steps, run_columns(recipe, seed, end["step"]), measurement)
        found = measure_tasks(work, serial=serial, progress=progress)
        store.remove(key)  # stopped between two tables, it must not vouch for a mixture
        for table in measurement.tables:
            lake.write(store, table, found.rows.get(table, ()), recipe=recipe.name, seed=seed)
    book_cpu(clock, found)
    write_timing(store, recipe.study, recipe.name, seed, end["step"], clock)
    description = {"from": expected_inputs(store, recipe, seed, measurement), "problems": found.problems}
    store.write(key, json.dumps(description, sort_keys=True).encode())
    delete_unused_parts(store, found.stale)
    return found.problems


def read_problems(store: Store, trajectory: Trajectory) -> list[str]:
    """The problems that the measurement of a run recorded; empty before it. Errors: ValueError if the record is
    damaged.
    """
    key, remedy = f"{trajectory.prefix}/measured.json", "delete it, and measure the run again"
    if not store.exists(key):
        return []
    found = facts_of(store.read(key), key, remedy).require({"problems": list})["problems"]
    if not all(isinstance(problem, str) for problem in found):
        raise ValueError(f"{key} has problems {repr_short(found)}, which are no texts; {remedy}")
    return found


def delete_unused_parts(store: Store, keys: Iterable[str]) -> None:
    """Delete parts that no measurement needs any more."""
    for key in keys:
        store.remove(key)


def _whole_matrix(ref: TensorRef) -> MatrixRef:
    """A stored tensor as one matrix, since this project's runs store no fused weights."""
    layer, part = role(ref.name)
    name = ref.name.removesuffix(".weight")
    return MatrixRef(name=name, source=ref.name, layer=layer, role=part, ref=ref, shape=ref.shape)
