"""Compare a run with the band of reference runs: complete, in progress or imported, from its tables or its snapshots.

A measured run is read from the lake. For another run the norms and subspaces are measured here, and saved in the same
parts as every measurement. The projected end needs weights: see `projecting`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from opd_ops.recipe.reaction import Guard, Rail
from pipelines import lake
from pipelines.regimes import bands
from pipelines.regimes.readings import QUANTITIES, read_quantities
from pipelines.runs.geometry import records
from pipelines.runs.geometry.measuring import list_tasks, measure_tasks
from pipelines.runs.geometry.measuring import read_problems as told
from pipelines.runs.geometry.projecting import Line, with_projected
from pipelines.runs.geometry.tasks import Pair
from pipelines.store.checkpoints import Checkpoint, open_checkpoint
from pipelines.store.matrices import matrices
from pipelines.store.matrix import MatrixRef
from pipelines.store.objects import Store
from pipelines.store.pairing import pair
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Measurement

TABLES = ("update_norm", "locking")  # what the readings come from
EXTERNAL = "external."  # recipes of imported checkpoints
METHOD = f"bands/2, level {bands.LEVEL:g}"
_SEED = re.compile(r"seed-(\d+)")

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class WatchedRun:
    """A run with its readings (schema `regimes.readings.READINGS`). problems: non-finite weights by name."""

    study: str
    recipe: str
    seed: int
    shapes: Shapes
    readings: pl.DataFrame
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.recipe if self.recipe.startswith(EXTERNAL) else f"{self.recipe} seed {self.seed}"

    @property
    def view(self) -> str:
        """The widest available view."""
        return "master" if "master" in self.readings["view"] else "bf16"


@dataclass(frozen=True, kw_only=True)
class Guardrails:
    """Bands by view and quantity, the matrix shapes of their model, and the references' own readings.

    deciding: the quantities, in one view, by which a run trips; the bands' level holds for them together.
    """

    references: tuple[str, ...]
    shapes: Shapes
    bands: dict[bands.Key, bands.Band]
    readings: pl.DataFrame
    deciding: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.references)

    def false_alarms(self, view: str) -> int | None:
        """How many references leave the band of the others, in a view; None for two references."""
        if len(self.references) < 3:
            return None
        gone = bands.left_out(self.readings, deciding=len(self.deciding)).filter(pl.col("tripped"), view=view)
        gone = gone.filter(pl.col("quantity").is_in(self.deciding))
        return gone.select("recipe", "seed").n_unique()


def watch_run(store: Store, recipe: str, seed: int = 0, *, projected: bool = True, serial: bool = True) -> WatchedRun:
    """A run's readings at its snapshots so far. projected: include similarity_projected, which reads weights.

    Errors: ValueError in one line for a run that is absent or has no snapshot, and for a checkpoint that has changed.
    """
    if recipe.startswith(EXTERNAL):
        return _watch_import(store, recipe, projected=projected, serial=serial)
    trajectory = Trajectory(store, recipe, seed)
    if not trajectory.is_registered():
        raise ValueError(f"there is no run {recipe} seed {seed}; runs lie under {store.uri}/runs")
    end = trajectory.end()
    steps = [step for step in (end["snapshots"] if end else trajectory.steps()) if step > 0]
    if not steps:
        raise ValueError(f"{recipe} seed {seed} has no snapshot after its start yet; let its training go on")
    study = trajectory.run()["identity"]["study"]
    columns = {"study": study, "recipe": recipe, "seed": seed}
    held, problems = _read_tables(store, recipe, seed), tuple(told(store, trajectory))
    work = list_tasks(trajectory, steps if projected or held is None else [], columns, Measurement(tables=TABLES))
    if held is None:
        measured = measure_tasks(work, serial=serial)
        held = tuple(measured.rows[name].cast(dict(lake.TABLES[name].schema)) for name in TABLES)
        problems = tuple(measured.problems)
    found = read_quantities(*held)
    if projected:
        lines = {one.name: _line(one.pairs) for one in work}
        stamps = {step: trajectory.digest(step) for step in (0, *steps)}
        found = with_projected(store, trajectory.prefix, found, lines, stamps, serial=serial)
    shapes = {one.name: one.shape for one in work}
    return WatchedRun(study=study, recipe=recipe, seed=seed, shapes=shapes, readings=found, problems=problems)


def calibrate_bands(
    store: Store,
    names: Sequence[str],
    *,
    without: tuple[str, int] | None = None,
    among: Sequence[tuple[str, int]] | None = None,
    quantities: Sequence[str] = QUANTITIES,
    projected: bool = True,
    serial: bool = True,
) -> Guardrails:
    """The bands of all complete runs of these recipes, imported ones too; of those `among` them, and but for `without`.

    quantities: those that decide, in one view; at most 5 % of healthy runs trip in any of them.
    projected: with similarity_projected; without it no weights are read, and only measured runs count.
    Errors: ValueError in one line for fewer than two runs, or runs of models of several sizes.
    """
    runs = [run for name in names for run in complete_runs(store, name) if run != without]
    runs = [run for run in runs if among is None or run in among]
    runs = [run for run in runs if projected or _read_tables(store, *run) is not None]
    if len(runs) < 2:
        found = ", ".join(f"{name} seed {seed}" for name, seed in runs) or "none"
        besides = f" besides {without[0]} seed {without[1]}" if without and without[0] in names else ""
        raise ValueError(
            f"a band needs two complete reference runs or more of {', '.join(names)}{besides}, and there are: {found}; "
            "train more seeds, or name more references"
        )
    held = [watch_run(store, name, seed, projected=projected, serial=serial) for name, seed in runs]
    for other in held[1:]:
        require_shapes(other, held[0].shapes, str(held[0]))
    known = pl.concat([one.readings for one in held])
    deciding = tuple(name for name in quantities if name in set(known["quantity"]))
    return Guardrails(
        references=tuple(str(one) for one in held),
        shapes=held[0].shapes,
        bands=bands.calibrate_bands(known, deciding=len(deciding)),
        readings=known,
        deciding=deciding,
    )


def complete_runs(store: Store, name: str) -> list[tuple[str, int]]:
    """(recipe, seed) of the complete runs of a recipe, or of the import of that name."""
    if name.startswith(EXTERNAL):
        return [(name, 0)] if records.read(store, name) else []
    seeds = sorted(int(match[1]) for one in store.list(f"runs/{name}") if (match := _SEED.fullmatch(one)))
    return [(name, seed) for seed in seeds if Trajectory(store, name, seed).end() is not None]


def judge_run(run: WatchedRun, rails: Guardrails) -> pl.DataFrame:
    """Rows of the table `monitor`. Errors: ValueError for a run of a model of another size."""
    require_shapes(run, rails.shapes, rails.references[0])
    judged = bands.judge_readings(run.readings, rails.bands)
    facts = {"study": run.study, "reference": str(rails), "method": METHOD}
    schema = lake.TABLES["monitor"].schema
    return judged.with_columns(pl.lit(value).alias(name) for name, value in facts.items()).select(schema.names())


def write_rows(store: Store, run: WatchedRun, rows: pl.DataFrame) -> None:
    """Write the run's partition of the table `monitor` if it differs from the stored one.

    Errors: ValueError if it differs and the store is read-only.
    """
    stored = lake.read_partition(store, "monitor", recipe=run.recipe, seed=run.seed)
    if stored is not None and stored.equals(rows):
        return
    store.require_writable()
    lake.write(store, "monitor", rows, recipe=run.recipe, seed=run.seed)


def require_shapes(run: WatchedRun, shapes: Shapes, reference: str) -> None:
    """Errors: ValueError naming the first matrix in which two models differ."""
    for name in sorted(run.shapes.keys() | shapes.keys()):
        ours, theirs = run.shapes.get(name), shapes.get(name)
        if ours != theirs:
            raise ValueError(
                f"{run} has {name} {_format_size(ours)} and {reference} {_format_size(theirs)}: a band holds for one "
                "model size, so name references of the same"
            )


def guard_rails(guardrails: Guardrails, quantity: str, view: str = "master", points: int = 25) -> tuple[Rail, ...]:
    """A band as points for a `Guard`, evenly spaced in the logarithm of the norm over its range.

    Errors: ValueError if the references have no such band.
    """
    band = guardrails.bands.get((view, quantity))
    curves = [curve.x for curve in band.curves if len(curve.x)] if band else []
    found = []
    if band and len(curves) > 1:
        # A band needs two references, so it reaches from the second to begin to the second last to end.
        begin, end = sorted(float(x[0]) for x in curves)[1], sorted(float(x[-1]) for x in curves)[-2]
        for x in np.linspace(begin, end, points):
            if (interval := band.interval_at(float(np.exp(x)))) is not None:
                found.append((float(np.exp(x)), interval.low, interval.high))
    if not found:
        raise ValueError(f"{guardrails} have no band of {quantity} in the view {view}")
    return tuple(found)


def resolve_guard(store: Store, guard: Guard, recipe: str, seed: int) -> tuple[Rail, ...]:
    """The rails of a guard: its own, or its reference's over the guard's seeds, without the run itself.

    Errors: ValueError naming a run of the reference that is not measured, or for fewer than two of them.
    """
    if guard.rails is not None:
        return guard.rails
    assert guard.reference is not None
    quantity = "similarity_previous" if guard.quantity == "similarity" else guard.quantity
    runs = [(guard.reference, number) for number in guard.seeds]
    for name, number in runs:
        if (name, number) != (recipe, seed) and _read_tables(store, name, number) is None:
            raise ValueError(f"{recipe} is guarded by {name} seed {number}, which is not measured: run it first")
    known = calibrate_bands(
        store, [guard.reference], without=(recipe, seed), among=runs, quantities=(quantity,), projected=False
    )
    return guard_rails(known, quantity)


def _watch_import(store: Store, recipe: str, *, projected: bool, serial: bool) -> WatchedRun:
    record, held = records.read(store, recipe), _read_tables(store, recipe, 0)
    if record is None or held is None:
        raise ValueError(
            f"there are no rows of {' and '.join(TABLES)} of {recipe}; measure it with `opd measure --name "
            f"{recipe.removeprefix(EXTERNAL)}`, or watch its folder with --trajectory"
        )
    found = read_quantities(*held)
    start = open_checkpoint("base", record["base"]["ref"])
    records.require_unchanged(0, record["base"], start)
    names = set(held[0]["matrix"])
    shapes = {name: ref.shape for name, ref in matrices(start).items() if name in names}
    if projected:
        lines: dict[str, Line] = {name: () for name in shapes}
        stamps = {0: record["base"]["stamp"]}
        for step, described in record["snapshots"].items():
            stamps[int(step)] = described["stamp"]
            for name, (before, after) in _comparable_weights(start, int(step), described).items():
                if name in names:
                    lines[name] += ((int(step), before, after),)
        found = with_projected(store, records.prefix(recipe), found, lines, stamps, serial=serial)
    problems = tuple(dict.fromkeys(p for table in TABLES for p in record["tables"].get(table, {}).get("problems", ())))
    return WatchedRun(study="external", recipe=recipe, seed=0, shapes=shapes, readings=found, problems=problems)


def _comparable_weights(
    start: Checkpoint, step: int, described: records.Record
) -> dict[str, tuple[MatrixRef, MatrixRef]]:
    """Comparable weights of a recorded snapshot; none if it is gone, since many trainers keep only the last few.

    Errors: ValueError if it has changed.
    """
    try:
        checkpoint = open_checkpoint(f"snapshot {step}", described["ref"])
    except ValueError:
        return {}
    records.require_unchanged(step, described, checkpoint)
    return pair(start, checkpoint).pairs


def _line(pairs: Sequence[Pair]) -> Line:
    return tuple((one.step, one.before.weight, one.after.weight) for one in pairs)


def _read_tables(store: Store, recipe: str, seed: int) -> tuple[pl.DataFrame, ...] | None:
    """The rows of TABLES, or None if one is absent."""
    found = [lake.read_partition(store, table, recipe=recipe, seed=seed) for table in TABLES]
    return tuple(one for one in found if one is not None) if all(one is not None for one in found) else None


def _format_size(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape)) if shape else "not at all"
