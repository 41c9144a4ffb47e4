"""Measure trajectories: one task per matrix over all its snapshots, on Ray or one after the other, with the same rows.

Matrix-major: a task reads W0 and each snapshot of its matrix by byte range and returns rows, never tensors.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from opd_ops.geometry import VERSION
from opd_ops.recipe import Recipe
from opd_ops.roles import PROJECTIONS, role
from pipelines import lake
from pipelines.lake.lake import partition_key
from pipelines.runs.clock import Clock
from pipelines.runs.cluster import fan_out
from pipelines.runs.training import write_timing
from pipelines.store.objects import Store
from pipelines.store.tensors import TensorRef
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Measurement

TABLES = ("update_support", "rotation", "spectral_drift", "localization", "update_spectrum", "hill", "locking")


@dataclass(frozen=True, kw_only=True)
class MatrixTask:
    """One matrix: its W0, its snapshots in order, and the key and fact columns of its rows."""

    name: str
    base: TensorRef
    snapshots: tuple[tuple[int, TensorRef], ...]
    columns: dict[str, Any]
    measurement: Measurement

    @property
    def cost(self) -> int:
        """Proportional to the work of dense factorizations."""
        m, n = (*self.base.shape, 1, 1)[:2]
        return m * n * min(m, n) * len(self.snapshots)


@dataclass(frozen=True)
class Found:
    """What one task returns: rows by table, problems, and the CPU and wall seconds it took."""

    rows: dict[str, list[dict[str, Any]]]
    problems: list[str]
    seconds: tuple[float, float]


def tasks(
    base: dict[str, TensorRef],
    snapshots: list[tuple[int, dict[str, TensorRef]]],
    columns: dict[str, Any],
    measurement: Measurement,
) -> list[MatrixTask]:
    """Tasks of all tensors of a model, the most expensive first."""
    found = []
    for name, ref in base.items():
        layer, part = role(name)
        keys = {"matrix": name.removesuffix(".weight"), "layer": layer, "role": part}
        found.append(
            MatrixTask(
                name=name,
                base=ref,
                snapshots=tuple((step, refs[name]) for step, refs in snapshots),
                columns=columns | keys,
                measurement=measurement,
            )
        )
    return sorted(found, key=lambda task: (-task.cost, task.name))


def measure_matrix(task: MatrixTask) -> Found:
    """All diagnostics of one matrix."""
    import torch

    from opd_ops.geometry.suite import Settings, measure

    torch.set_num_threads(1)
    clock = Clock()
    with clock.phase("measure"):
        result = measure(
            task.base.read(),
            ((step, ref.read()) for step, ref in task.snapshots),
            settings=Settings(**asdict(task.measurement)),
            projection=task.columns["role"] in PROJECTIONS and len(task.base.shape) == 2,
        )
    rows = {table: [task.columns | row for row in found] for table, found in result.rows.items()}
    wall, cpu = clock.seconds["measure"]
    return Found(rows, [f"{task.name}: {problem}" for problem in result.problems], (wall, cpu))


def measure(
    work: list[MatrixTask], *, serial: bool, progress: Callable[[int, int], None] = lambda done, of: None
) -> Found:
    """Rows of all tasks, ordered by matrix name, whatever ran first."""
    results = fan_out(measure_matrix, work, serial=serial, done=lambda count: progress(count, len(work)))
    order = sorted(range(len(work)), key=lambda index: work[index].name)
    rows = {table: [row for index in order for row in results[index].rows[table]] for table in TABLES}
    problems = [problem for index in order for problem in results[index].problems]
    return Found(
        rows,
        problems,
        (sum(result.seconds[0] for result in results), sum(result.seconds[1] for result in results)),
    )


def facts(recipe: Recipe, seed: int, steps: int) -> dict[str, Any]:
    """The columns that say whose rows these are and what they depend on."""
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


def expected(store: Store, recipe: Recipe, seed: int, measurement: Measurement) -> dict[str, Any]:
    """What a measurement of this run would say it was made from."""
    trajectory = Trajectory(store, recipe.name, seed)
    end = trajectory.end()
    assert end is not None
    return {
        "engine": VERSION,
        "settings": {key: list(value) for key, value in asdict(measurement).items()},
        "snapshots": {str(step): trajectory.digest(step) for step in end["snapshots"]},
    }


def measured(store: Store, recipe: Recipe, seed: int, measurement: Measurement) -> bool:
    """True when the run's tables exist and were made from its snapshots with these settings and this engine."""
    trajectory = Trajectory(store, recipe.name, seed)
    key = f"{trajectory.prefix}/measured.json"
    if trajectory.end() is None or not store.exists(key):
        return False
    if not all(store.exists(partition_key(table, recipe=recipe.name, seed=seed)) for table in TABLES):
        return False
    return json.loads(store.read(key)).get("from") == expected(store, recipe, seed, measurement)


def measure_run(
    store: Store,
    recipe: Recipe,
    seed: int,
    measurement: Measurement,
    *,
    serial: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[str]:
    """Measure a complete run and write its tables; returns problems (non-finite weights by name)."""
    trajectory = Trajectory(store, recipe.name, seed)
    end = trajectory.end()
    if end is None:
        raise ValueError(f"{trajectory.prefix} is not complete: train it before measuring")
    key = f"{trajectory.prefix}/measured.json"
    if measured(store, recipe, seed, measurement):
        return json.loads(store.read(key))["problems"]
    clock = Clock()
    with clock.phase("measure"):
        steps = [step for step in end["snapshots"] if step > 0]
        work = tasks(
            trajectory.refs(0),
            [(step, trajectory.refs(step)) for step in steps],
            facts(recipe, seed, end["step"]),
            measurement,
        )
        found = measure(work, serial=serial, progress=progress)
        for table in TABLES:
            lake.write(store, table, found.rows[table], recipe=recipe.name, seed=seed)
    clock.seconds["measure"][1] = found.seconds[1]
    write_timing(store, recipe.study, recipe.name, seed, end["step"], clock)
    description = {"from": expected(store, recipe, seed, measurement), "problems": found.problems}
    store.write(key, json.dumps(description, sort_keys=True).encode())
    return found.problems
