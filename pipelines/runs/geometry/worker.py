"""The work on one matrix: measure what no part holds yet, save it as it comes, and return all rows.

Memory holds W0, one W_t and, for nulls, the final weight. A weight that is no projection and larger than a block is
compared in blocks of rows, whose counts add up.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.lake.lake import compact
from pipelines.runs.clock import Clock
from pipelines.runs.cluster.attach import use_one_thread
from pipelines.runs.geometry.parts import Entry, Parts, Rows, missing_units
from pipelines.runs.geometry.tasks import FIXED, SHUFFLED, MatrixTask, Pair, Source, table_units
from pipelines.store.bases import BaseCache
from pipelines.studies.pairs import choose_pairs

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from opd_ops.geometry.suite import Matrix, NullRows, Settings


@dataclass(frozen=True)
class Found:
    """rows by table, with texts as categories (`lake.compact`); seconds: [wall, CPU] by phase of this call.

    problems: by name, weights that are not finite and what could not be computed. phases: measure, and base, the part
    of it that went into base factors. stale: parts that nothing needs any more.
    """

    rows: "dict[str, pl.DataFrame]"
    problems: list[str]
    seconds: dict[str, list[float]]
    stale: list[str]


def measure_matrix(task: MatrixTask) -> Found:
    """All tables of one matrix. Errors: ValueError naming file and tensor where bytes are missing."""
    use_one_thread()
    clock = Clock()
    with clock.phase("measure"):
        parts = Parts(task)
        work = _Work(task, parts)
        with parts.flushing():
            work.snapshots()
            work.nulls()
        rows, problems = _assemble_rows(task, parts)
    if any(work.base):
        clock.seconds["base"] = work.base
    return Found(rows, problems, clock.seconds, parts.stale)


class _Work:
    """The measuring of a task's missing tables."""

    def __init__(self, task: MatrixTask, parts: Parts) -> None:
        self.task, self.parts = task, parts
        self.wanted = missing_units(task, parts.entries)
        self.base = [0.0, 0.0]  # wall and CPU seconds of base factors

    def snapshots(self) -> None:
        """Every table but nulls and locking; for locking, the subspaces."""
        groups: dict[tuple[str, tuple[str, ...]], list[Pair]] = {}
        for pair in self.task.pairs:
            if tables := tuple(table for table in self.wanted.get(pair.step, ()) if table != "nulls"):
                groups.setdefault((_readable(pair.before, pair).identity, tables), []).append(pair)
        for (_, tables), pairs in groups.items():
            if not self.task.projection and max(_nbytes(pair) for pair in pairs) > self.task.at_once:
                for pair in pairs:
                    self.parts.add(self._by_rows(pair, tables))
            else:
                self._group_by_base(pairs, tables)

    def _group_by_base(self, pairs: list[Pair], tables: tuple[str, ...]) -> None:
        """Snapshots that share W0 and the missing tables."""
        with self._matrix(pairs[0].before, tables) as matrix:
            for pair in pairs:
                self.parts.add(self._snapshot(matrix, pair, tables))

    def nulls(self) -> None:
        """The rows of `nulls`: each missing null of each step."""
        wanted = {
            pair.step: [unit for unit in table_units("nulls") if self.parts.find_serving(pair, unit) is None]
            for pair in self.task.pairs
            if "nulls" in self.wanted.get(pair.step, ())
        }
        pairs = [pair for pair in self.task.pairs if wanted.get(pair.step)]
        if not pairs:
            return
        last = self.task.final
        final = _readable(last.after, last).weight.read() if any(FIXED in each for each in wanted.values()) else None
        with self._matrix(_readable(pairs[0].before, pairs[0]), ("nulls",)) as matrix:
            for pair in pairs:
                weight = final if pair is last and final is not None else _readable(pair.after, pair).weight.read()
                if SHUFFLED in wanted[pair.step]:
                    self._add_null(pair, SHUFFLED, weight, matrix.shuffled_null(pair.step, weight), None)
                if FIXED in wanted[pair.step] and final is not None:
                    null = matrix.fixed_direction(pair.step, weight, last.step, final)
                    self._add_null(pair, FIXED, weight, null, (last.step, last.after.identity))

    def _add_null(
        self, pair: Pair, unit: str, weight: "Tensor", null: "NullRows", final: tuple[int, str] | None
    ) -> None:
        from opd_ops.geometry.views import dtype_name

        entry = self._entry(
            pair,
            (unit,),
            rows={"nulls": null.rows},
            dtype=dtype_name(weight.dtype),
            final=final,
            problems=(null.problem,) if null.problem else (),
            subspaces=null.subspaces,
        )
        self.parts.add(entry)

    @contextmanager
    def _matrix(self, before: Source, tables: tuple[str, ...]) -> "Iterator[Matrix]":
        from opd_ops.geometry.suite import Matrix

        cache = BaseCache(self.task.store, before.identity)
        try:
            yield Matrix(
                before.weight.read(),
                settings=self._settings(tables),
                projection=self.task.projection,
                cache=cache,
                gemm_path=self.task.gemm_path,
            )
        except RuntimeError as error:  # of the machine: what a matrix raises becomes its reason
            raise RuntimeError(f"{self.task.name}: {error}") from error
        self.base = [total + more for total, more in zip(self.base, cache.seconds, strict=True)]

    def _settings(self, tables: tuple[str, ...]) -> "Settings":
        from opd_ops.geometry.suite import Settings

        return Settings(**self.task.measurement.cuts, tables=tables)

    def _snapshot(self, matrix: "Matrix", pair: Pair, tables: tuple[str, ...]) -> Entry:
        found = matrix.snapshot(pair.step, _readable(pair.after, pair).weight.read())
        return self._entry(
            pair,
            tables,
            rows={table: found.rows[table] for table in tables if table != "locking"},
            dtype=found.dtype,
            problems=tuple(problem for problem in (matrix.problem, found.problem) if problem),
            subspaces=found.subspaces,
        )

    def _by_rows(self, pair: Pair, tables: tuple[str, ...]) -> Entry:
        """Support alone, one block of rows after the other."""
        from opd_ops.geometry.suite import Matrix
        from opd_ops.geometry.views import count_nonfinite, dtype_name

        before, after = pair.before.weight, _readable(pair.after, pair).weight
        rows = max(1, self.task.at_once * before.shape[0] // max(_nbytes(pair), 1))
        merged: dict[str, dict[str, Any]] = {}
        broken, dtype = [0, 0], ""
        for begin in range(0, before.shape[0], rows):
            end = min(begin + rows, before.shape[0])
            base, weight = before.read_rows(begin, end), after.read_rows(begin, end)
            matrix = Matrix(base, settings=self._settings(tables), projection=False)
            broken = [broken[0] + matrix.broken, broken[1] + count_nonfinite(weight)]
            dtype = dtype_name(weight.dtype)
            for row in matrix.snapshot(pair.step, weight).rows["update_support"]:
                whole = merged.setdefault(row["view"], row | {"numel": 0, "unchanged": 0})
                whole["numel"] += row["numel"]
                whole["unchanged"] += round(row["unchanged"] * row["numel"])
        found = [row | {"unchanged": row["unchanged"] / row["numel"]} for row in merged.values()]
        told = zip(("base", f"step {pair.step}"), broken, strict=True)
        problems = tuple(f"{who}: {count} non-finite weights" for who, count in told if count)
        return self._entry(pair, tables, rows={"update_support": found}, dtype=dtype, problems=problems)

    def _entry(self, pair: Pair, tables: tuple[str, ...], *, rows: Rows, dtype: str, **facts: Any) -> Entry:
        if _readable(pair.after, pair).weight.ref.view is not None:
            dtype = f"{dtype}-update-bf16"  # the master is what an update in bf16 gave back
            rows = {table: [row | {"dtype": dtype} for row in found] for table, found in rows.items()}
        return Entry(
            step=pair.step,
            before=pair.before.identity,
            after=pair.after.identity,
            tables=tables,
            made_from=self.task.made_from,
            rows=rows,
            dtype=dtype,
            **facts,
        )


def _readable(source: Source, pair: Pair) -> Source:
    """Errors: ValueError for a snapshot that is gone."""
    if source.ref is None:
        raise ValueError(f"snapshot {pair.step} is gone and must be read; give it again where it lies now")
    return source


def _nbytes(pair: Pair) -> int:
    """Bytes of the larger weight."""
    return max(source.ref.nbytes for source in (pair.before, pair.after) if source.ref)


def _assemble_rows(task: MatrixTask, parts: Parts) -> "tuple[dict[str, pl.DataFrame], list[str]]":
    """Rows of all tables in order of steps, from all parts, and the problems of non-finite weights."""
    from opd_ops.geometry.snapshot import Snapshot, locking_columns
    from opd_ops.geometry.suite import NullRows, compare_nulls

    rows: Rows = {table: [] for table in task.measurement.tables}
    problems: dict[str, None] = {}
    shuffled: list[NullRows] = []
    for pair in task.pairs:
        for table in task.tables_by_step[pair.step]:
            for unit in table_units(table):
                entry = parts.find_serving(pair, unit)
                assert entry is not None
                problems |= dict.fromkeys(entry.problems)
                if unit == SHUFFLED:
                    shuffled.append(NullRows(entry.rows["nulls"], entry.subspaces, None))
                else:
                    rows[table] += entry.rows.get(table, [])
    if shuffled:
        rows["nulls"] += compare_nulls(shuffled, task.final.step)
    found = {table: compact(table, each, task.columns) for table, each in rows.items()}
    if "locking" in task.tables:
        held = [entry for pair in task.pairs if (entry := parts.find_serving(pair, "locking"))]
        taken = [Snapshot(entry.step, entry.dtype, {}, entry.subspaces) for entry in held]
        columns = locking_columns(taken, partial(choose_pairs, choice=task.measurement.locking_pairs))
        found["locking"] = compact("locking", columns, task.columns)
    return found, [f"{task.name}: {problem}" for problem in problems]
