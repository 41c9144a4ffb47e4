"""The unit of work: one matrix over all its snapshots, identified by the location and content of its bytes."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote

from opd_ops.geometry import VERSION
from opd_ops.roles import PROJECTIONS
from pipelines.runs.geometry import estimates
from pipelines.store.matrix import MatrixRef
from pipelines.store.objects import Store
from pipelines.studies.study import Measurement

UNIT = 10**6  # operations in a unit of cost
BLOCK = 64 * 2**20  # bytes of a weight that is read at once where support alone is measured
SUPPORT = ("update_support",)  # tables of what is no projection
SHUFFLED, FIXED = "nulls:shuffled", "nulls:fixed_direction"  # the units of the table nulls; another table is one unit


@dataclass(frozen=True)
class Source:
    """A weight of one checkpoint. stamp: of the checkpoint; it changes when weights may have changed.

    ref: None if the checkpoint is gone and only its measured parts are left.
    """

    stamp: str
    ref: MatrixRef | None

    @property
    def identity(self) -> str:
        """Stamp, stored tensor and the slice of it that is the weight. Needs a ref."""
        ref = self.weight
        cut = (ref.rows, ref.columns, ref.stride, ref.transposed, ref.index)
        whole = cut == (None, None, 1, False, None)
        return f"{self.stamp}/{ref.source}" + ("" if whole else json.dumps(cut))

    @property
    def weight(self) -> MatrixRef:
        assert self.ref is not None
        return self.ref

    def matches(self, identity: str) -> bool:
        return identity == self.identity if self.ref else identity.startswith(f"{self.stamp}/")


@dataclass(frozen=True)
class Pair:
    """A snapshot of a matrix: W0 and W_t. W0 may differ between snapshots, in the rows that both have."""

    step: int
    before: Source
    after: Source


@dataclass(frozen=True, kw_only=True)
class MatrixTask:
    """One matrix and its snapshots in order of steps.

    prefix: of the run in the store, under which its parts are kept. columns: keys and facts of its rows.
    shape, dtype: of W0 [out, in], by safetensors' name. gemm_path: the f32 product that workers use, as the driver
    chose it. block: bytes of what is no projection that are compared at once, or BLOCK where it is 0; counts do not
    depend on it. needs: bytes that its worker will hold, where the driver has looked (`fitting`).
    """

    store: Store
    prefix: str
    name: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    pairs: tuple[Pair, ...]
    columns: dict[str, Any]
    measurement: Measurement
    engine: int = VERSION
    gemm_path: str = field(default="highest", compare=False)
    block: int = field(default=0, compare=False)
    needs: int = field(default=0, compare=False)

    @property
    def folder(self) -> str:
        """Where its parts are kept."""
        return f"{self.prefix}/measured/{quote(self.name, safe='')}"

    @property
    def projection(self) -> bool:
        return self.role in PROJECTIONS and len(self.shape) == 2

    @cached_property
    def tables(self) -> tuple[str, ...]:
        """The requested tables that a matrix of this kind has rows in."""
        return tuple(table for table in self.measurement.tables if self.projection or table in SUPPORT)

    @cached_property
    def tables_by_step(self) -> dict[int, tuple[str, ...]]:
        """The requested tables of each snapshot."""
        asked = self.measurement.tables_by_step([pair.step for pair in self.pairs])
        return {step: tuple(t for t in tables if self.projection or t in SUPPORT) for step, tables in asked.items()}

    @cached_property
    def made_from(self) -> dict[str, Any]:
        """All inputs of the rows besides weights and tables, as JSON types."""
        cuts = {name: list(values) for name, values in self.measurement.cuts.items()}
        return {"engine": self.engine, "settings": cuts}

    @property
    def final(self) -> Pair:
        """The last snapshot, which nulls are compared with."""
        return self.pairs[-1]

    @cached_property
    def cost(self) -> int:
        """Cost of all its snapshots, in millions of operations."""
        return self.cost_of(self.tables_by_step)

    def cost_of(self, wanted: dict[int, tuple[str, ...]], *, base_known: bool = False) -> int:
        """Cost of the given tables of each step, in millions of operations; at least 1."""
        k, found = self.measurement.k, 0.0
        for pair in self.pairs:
            if pair.after.ref and (tables := wanted.get(pair.step)):
                stored = pair.after.ref.ref.dtype
                found += estimates.per_snapshot(self.shape, stored, tables, k, projection=self.projection)
        if found and self.projection and not base_known:
            asked = {table for tables in wanted.values() for table in tables}
            found += self.starts * estimates.per_base(self.shape, self.dtype, asked, k)
        return max(1, int(found / UNIT))

    @property
    def at_once(self) -> int:
        """Bytes of a weight that are read at once if only support is measured."""
        return self.block or BLOCK

    @property
    def memory(self) -> int:
        """Upper bound in bytes for a worker that measures all its tables."""
        return self.needs or self.memory_of(self.tables)

    def memory_of(self, tables: Collection[str]) -> int:
        """Upper bound in bytes for a worker that measures these tables; 0 without tables."""
        refs = [source.weight for pair in self.pairs for source in (pair.before, pair.after) if source.ref]
        if not tables or not refs:
            return 0
        stored = max(ref.nbytes for ref in refs)
        # A coded weight is read beside its code and its base, a plain one beside its bytes.
        read = max(ref.nbytes * (1 if ref.ref.code is None else 2) for ref in refs)
        if not self.projection:
            return estimates.streamed_bytes(stored, self.at_once, read)
        peak = estimates.peak_bytes(self.shape, self.dtype, stored, tables, self.measurement.k, read=read)
        return peak + estimates.kept_bytes(self.shape, len(self.pairs), self.views, tables)

    @property
    def views(self) -> int:
        """Two if any snapshot is wider than bf16, else one."""
        return 2 if any(pair.after.ref and pair.after.ref.ref.dtype in estimates.MASTER for pair in self.pairs) else 1

    @cached_property
    def starts(self) -> int:
        """Base factors it may need: one per view, if W0 and a snapshot are both wider than bf16."""
        return self.views if self.dtype in estimates.MASTER else 1


def table_units(table: str) -> tuple[str, ...]:
    """The units of a table in an entry: the whole table, or for nulls each null, one of which depends on the final
    step.
    """
    return (SHUFFLED, FIXED) if table == "nulls" else (table,)
