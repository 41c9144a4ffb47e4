"""Measured results of one matrix, saved as they come: objects of a few snapshots each, never changed.

    runs/<recipe>/seed-<n>/measured/<matrix>/<SHA-256 of the object, 24 digits>.safetensors

The header's metadata describes the entries and their inputs. The tensor ROWS holds the rows: JSON, compressed by zlib.
The other tensors are the leading subspaces of the updates, in as many bytes as their errors need (`fixed_point`);
locking of any pair of snapshots is computed from them. A damaged object does not match its name and is measured again.
Parts of earlier versions, with rows in the metadata and subspaces in float64 or f32, can still be read.
"""

import hashlib
import json
import math
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipelines.runs.geometry.tasks import FIXED, MatrixTask, Pair, table_units
from pipelines.store.json_object import is_count, parse_json
from pipelines.store.objects import Store
from pipelines.store.tensors import read_header

if TYPE_CHECKING:
    from torch import Tensor

    from opd_ops.geometry.update import Subspaces

FLUSH = 10.0  # wall seconds of work after which a part is written
END, PART, ROWS = ".safetensors", "part", "rows"
SIDES = ("output", "input")

Rows = dict[str, list[dict[str, Any]]]  # by table


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One snapshot's rows of some units of tables (`tasks.units`). before, after: identities of W0 and W_t. dtype: what
    the snapshot stores.

    final: step and identity of the weight whose direction FIXED has. problems: why rows are null. made_from: engine and
    settings. subspaces: by view, of the update where locking is among the units, of the null where SHUFFLED is; left
    out where only rows were asked for.
    """

    step: int
    before: str
    after: str
    tables: tuple[str, ...]
    rows: Rows
    made_from: dict[str, Any]
    dtype: str = ""
    final: tuple[int, str] | None = None
    problems: tuple[str, ...] = ()
    subspaces: "dict[str, Subspaces]" = field(default_factory=dict)

    def serves(self, task: MatrixTask, pair: Pair, unit: str) -> bool:
        """Whether it holds a unit of a snapshot of the task, for the same weights, settings and engine."""
        last = task.final
        return (
            self.step == pair.step
            and unit in self.tables
            and self.made_from == task.made_from
            and pair.before.matches(self.before)
            and pair.after.matches(self.after)
            and (
                unit != FIXED
                or (self.final is not None and self.final[0] == last.step and last.after.matches(self.final[1]))
            )
        )


def missing_units(task: MatrixTask, entries: list[Entry]) -> dict[int, tuple[str, ...]]:
    """Tables by step, of the task's snapshots, that no entry holds; complete steps are left out."""
    by_step: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_step[entry.step].append(entry)
    missing = {}
    for pair in task.pairs:
        there = by_step[pair.step]
        missing[pair.step] = tuple(
            table
            for table in task.tables_by_step[pair.step]
            if not all(any(entry.serves(task, pair, unit) for entry in there) for unit in table_units(table))
        )
    return {step: tables for step, tables in missing.items() if tables}


def list_entries(task: MatrixTask) -> list[Entry]:
    """All entries of the task's matrix without rows and subspaces, from headers alone."""
    found: list[Entry] = []
    for key in _keys(task.store, task.folder):
        try:
            found += _entries(parse_json(read_header(task.store, key).data), None)
        except (ValueError, LookupError, TypeError, AttributeError, FileNotFoundError):
            continue
    return found


class Parts:
    """The parts of one task's matrix: stored ones, and pending ones."""

    def __init__(self, task: MatrixTask) -> None:
        self.task = task
        self.by_step: defaultdict[int, list[Entry]] = defaultdict(list)
        self.stale: list[str] = []  # keys of parts that serve nothing and never will
        self.pending: list[Entry] = []
        self.flushed = time.perf_counter()
        steps = {pair.step: pair for pair in task.pairs}
        for key in _keys(task.store, task.folder):
            entries = _read(task.store, key)
            for entry in entries:
                self.by_step[entry.step].append(entry)
            known = [entry for entry in entries if entry.made_from == task.made_from]
            if not any(
                entry.step not in steps or any(entry.serves(task, steps[entry.step], table) for table in entry.tables)
                for entry in known
            ):
                self.stale.append(key)

    @property
    def entries(self) -> list[Entry]:
        return [entry for entries in self.by_step.values() for entry in entries]

    def add(self, entry: Entry) -> None:
        """Add an entry, with its subspaces rounded as they will be read; write pending entries after enough work."""
        if entry.subspaces:
            from opd_ops.geometry.fixed_point import round_subspaces

            entry = replace(entry, subspaces={view: round_subspaces(each) for view, each in entry.subspaces.items()})
        self.by_step[entry.step].append(entry)
        self.pending.append(entry)
        if time.perf_counter() - self.flushed >= FLUSH:
            self.flush()

    def flush(self) -> None:
        if self.pending:
            data = _serialise(self.pending, self.task.gemm_path)
            key = f"{self.task.folder}/{_name(data)}"
            self.task.store.write(key, data)
            # A damaged part may have been made whole again under its own name.
            self.stale = [stale for stale in self.stale if stale != key]
        self.pending, self.flushed = [], time.perf_counter()

    @contextmanager
    def flushing(self) -> Iterator[None]:
        """Write pending entries at the end of the block, also before its error propagates."""
        try:
            yield
        finally:
            self.flush()

    def find_serving(self, pair: Pair, unit: str) -> Entry | None:
        return next((entry for entry in self.by_step[pair.step] if entry.serves(self.task, pair, unit)), None)


def _name(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()[:24]}{END}"


def _keys(store: Store, folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in store.list(folder) if name.endswith(END)]


def _read(store: Store, key: str) -> list[Entry]:
    """The entries of a part; none if it is damaged, or was deleted since it was listed."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = store.read(key)
    except FileNotFoundError:  # another call needed it no more
        return []
    if not key.endswith(f"/{_name(data)}"):
        return []
    length = int.from_bytes(data[:8], "little")
    try:
        return _entries(parse_json(data[8 : 8 + length]), load(data))
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, zlib.error, SafetensorError):
        return []


def _serialise(entries: list[Entry], gemm_path: str) -> bytes:
    import torch
    from safetensors.torch import save

    from opd_ops.geometry.fixed_point import pack

    rows = zlib.compress(json.dumps({ROWS: [entry.rows for entry in entries]}, allow_nan=False).encode())
    tensors, held = {ROWS: torch.frombuffer(bytearray(rows), dtype=torch.uint8)}, []
    for i, entry in enumerate(entries):
        facts = {name: value for name, value in vars(entry).items() if name != "rows"} | {"subspaces": {}}
        for view, found in entry.subspaces.items():
            packed = {side: pack(found.side(side)) for side in SIDES}
            tensors |= {f"{i}.{view}.{side}": integers.contiguous() for side, (integers, _) in packed.items()}
            errors = [None if math.isinf(error) else error for error in found.errors]
            facts["subspaces"][view] = {
                "cuts": found.cuts,
                "errors": errors,
                "reasons": found.reasons,
                "method": found.method,
                "units": [packed[side][1] for side in SIDES],
            }
        held.append(facts)
    # One item, since safetensors writes several in any order and equal parts should have equal names.
    return save(tensors, metadata={PART: json.dumps({"gemm_path": gemm_path, "entries": held}, allow_nan=False)})


def _entries(header: dict[str, Any], tensors: "dict[str, Tensor] | None") -> list[Entry]:
    entries = parse_json(header["__metadata__"][PART].encode())["entries"]
    rows: list[Any] = [{}] * len(entries)
    if tensors is not None and ROWS in tensors:
        rows = parse_json(zlib.decompress(tensors[ROWS].numpy().tobytes()))[ROWS]
    found = []
    for i, (facts, each) in enumerate(zip(entries, rows, strict=True)):
        subspaces = {} if tensors is None else _subspaces(i, facts["subspaces"], tensors)
        facts = {"rows": each} | facts
        facts |= {
            "tables": tuple(facts["tables"]),
            "problems": tuple(facts["problems"]),
            "final": tuple(facts["final"]) if facts["final"] else None,
            "subspaces": subspaces,
        }
        found.append(_check_entry(Entry(**facts)))
    return found


def _check_entry(entry: Entry) -> Entry:
    """The entry itself. Errors: TypeError for a field of a wrong type."""
    texts = (entry.before, entry.after, entry.dtype, *entry.tables, *entry.problems)
    rows = isinstance(entry.rows, dict) and all(isinstance(found, list) for found in entry.rows.values())
    final = entry.final is None or (len(entry.final) == 2 and isinstance(entry.final[1], str))
    if not (is_count(entry.step) and all(isinstance(text, str) for text in texts) and rows and final):
        raise TypeError("no entry of a part")
    return entry


def _subspaces(place: int, views: dict[str, dict[str, Any]], tensors: "dict[str, Tensor]") -> "dict[str, Subspaces]":
    from opd_ops.geometry.fixed_point import unpack
    from opd_ops.geometry.update import Subspaces

    return {
        view: Subspaces(
            **{
                side: unpack(tensors[f"{place}.{view}.{side}"], unit)
                for side, unit in zip(SIDES, facts.get("units", (1.0, 1.0)), strict=True)
            },
            cuts=tuple(facts["cuts"]),
            errors=tuple(math.inf if error is None else error for error in facts["errors"]),
            reasons=tuple(facts["reasons"]),
            method=facts["method"],
        )
        for view, facts in views.items()
    }
