"""Estimate by role what an import will read, compute and save, without doing it (`opd plan`)."""

from dataclasses import dataclass, fields

from pipelines.runs.external.imports import Import
from pipelines.runs.geometry import estimates
from pipelines.runs.geometry.parts import list_entries, missing_units
from pipelines.runs.geometry.tasks import UNIT, MatrixTask
from pipelines.store.bases import find_cached
from pipelines.store.objects import Store

GFLOPS = 50.0  # of a large f32 product, one thread of a recent server core: half of what the fastest have


@dataclass
class Line:
    """One role: matrices, bytes to read, bytes of base factors in total and already cached, CPU seconds in total.

    snapshots: bytes of those to be measured. parts: bytes that they will add to the store (`runs.geometry.parts`).
    """

    matrices: int = 0
    read: int = 0
    base: int = 0
    base_kept: int = 0
    snapshots: int = 0
    parts: int = 0
    seconds: float = 0.0

    def add(self, other: "Line") -> None:
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass(frozen=True)
class Outline:
    """by_role: in the order of first matrices. measured: complete steps. peak: upper bound of a worker's bytes."""

    by_role: dict[str, Line]
    measured: tuple[int, ...]
    waiting: tuple[int, ...]
    peak: int

    @property
    def total(self) -> Line:
        total = Line()
        for line in self.by_role.values():
            total.add(line)
        return total


def outline_import(imported: Import, gflops: float) -> Outline:
    """gflops: the rate of a large f32 product on the machine that will measure."""
    by_role: dict[str, Line] = {}
    work = sorted(imported.work, key=lambda task: task.name)
    wanted = [missing_units(task, list_entries(task)) for task in work]
    kept = _Kept(imported.store, work)
    for task, missing in zip(work, wanted, strict=True):
        by_role.setdefault(task.role, Line()).add(_line(task, missing, kept, gflops))
    waiting = {step for missing in wanted for step in missing}
    return Outline(
        by_role,
        tuple(step for step in imported.steps if step not in waiting),
        tuple(sorted(waiting)),
        max(
            (task.memory_of(_requested_tables(missing)) for task, missing in zip(work, wanted, strict=True) if missing),
            default=0,
        ),
    )


def core_seconds(imported: Import, gflops: float = GFLOPS) -> float:
    """Estimated CPU seconds of the missing work, at a default rate, since torch is not loaded yet."""
    cost = sum(task.cost_of(missing_units(task, list_entries(task))) for task in imported.work)
    return cost * UNIT / (gflops * 1e9)


class _Kept:
    """Base weights, by identity, whose factors or masks are cached."""

    def __init__(self, store: Store, work: list[MatrixTask]) -> None:
        from opd_ops.geometry.settings import Settings

        sources = {pair.before.identity for task in work for pair in task.pairs if task.projection and pair.before.ref}
        q = estimates.width(work[0].measurement.k) if work else 0
        self.factors = find_cached(store, f"factors-{q}", sources)
        self.masks = find_cached(store, "masks-" + "-".join(f"{alpha:g}" for alpha in Settings().alpha), sources)


def _line(task: MatrixTask, missing: dict[int, tuple[str, ...]], kept: _Kept, gflops: float) -> Line:
    line = Line(matrices=1)
    pairs = [pair for pair in task.pairs if pair.step in missing and pair.before.ref and pair.after.ref]
    if not pairs:
        return line
    source, k = pairs[0].before.identity, task.measurement.k
    asked = _requested_tables(missing)
    if task.projection:
        for size, needs, there in (
            (estimates.base_bytes, estimates.BASED, kept.factors),
            (estimates.mask_bytes, {"localization"}, kept.masks),
        ):
            if not asked.isdisjoint(needs):
                line.base += task.starts * size(task.shape, task.dtype, k)
                line.base_kept += task.starts * size(task.shape, task.dtype, k) * (source in there)
    # W0 once; with every snapshot where blocks are compared; and all a second time for nulls.
    bases = [pair.before.weight.nbytes for pair in pairs]
    line.snapshots = sum(pair.after.weight.nbytes for pair in pairs)
    line.read = line.snapshots + (sum(bases) if _blocks(task) else bases[0])
    if task.projection:
        line.parts = estimates.stored_bytes(task.shape, len(pairs), task.views, asked)
    if nulls := [pair.after.weight.nbytes for pair in pairs if "nulls" in missing[pair.step]]:
        line.read += bases[0] + sum(nulls)
    line.seconds = task.cost_of(missing, base_known=source in kept.factors) * UNIT / (gflops * 1e9)
    return line


def _blocks(task: MatrixTask) -> bool:
    """Whether every snapshot reads W0 again."""
    return not task.projection and any(pair.after.ref and pair.after.ref.nbytes > task.at_once for pair in task.pairs)


def _requested_tables(missing: dict[int, tuple[str, ...]]) -> set[str]:
    return {table for tables in missing.values() for table in tables}
