"""A run's rollouts as Parquet: sampled tokens, their log-probabilities, the weights that drew them and their rewards.

    runs/<recipe>/seed-<n>/rollouts/steps-<8 digits>-<8 digits>.parquet     rows of the steps from first to last

Token lists are ragged, not padded. A part is written once: a run that continues from its resume state draws the same
rows again, and rows that differ are an error. Another run replays a step with `read`.
"""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.store.checksum import REMEDY
from pipelines.store.names import escape_text
from pipelines.store.objects import Store

TOKENS = pa.list_(pa.field("element", pa.int32(), nullable=False))
REALS = pa.list_(pa.field("element", pa.float32(), nullable=False))
TEXT, INT, REAL, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_PART = re.compile(r"steps-(\d{8})-(\d{8})\.parquet$")


@dataclass(frozen=True)
class Column:
    """One column: Arrow type, unit ("" for none), meaning, and whether it may be null."""

    name: str
    dtype: pa.DataType
    unit: str
    meaning: str
    null: bool = False


COLUMNS = (
    Column("step", INT, "optimizer steps", "optimizer step that trains on the row, from 1"),
    Column("prompt_id", INT, "", "index of the problem among those of the step; a group in RLVR"),
    Column("sample_id", INT, "", "index of the response among those to its prompt"),
    Column("prompt", TOKENS, "tokens", "prompt that the student reads"),
    Column("privileged", TOKENS, "tokens", "prompt that a privileged teacher reads; null where there is none", True),
    Column("tokens", TOKENS, "tokens", "response, with EOS where it was drawn"),
    Column("logprob", REALS, "nats", "log-probability of each token under the rollout policy, at `temperature`"),
    Column("version", INT, "optimizer steps", "optimizer steps behind the weights that drew the row"),
    Column("truncated", FLAG, "", "the length limit came before EOS"),
    Column("reward", REAL, "", "the verifier's reward; null where nothing was verified", True),
    Column("answer", TEXT, "", "the problem's exact answer"),
    Column("seed", INT, "", "seed of the row's uniforms, whose address is (seed, step, prompt_id, sample_id)"),
    Column("engine", TEXT, "", "what drew the row: hf or vllm"),
    Column("engine_release", TEXT, "", "release of the engine's package"),
    Column("temperature", REAL, "", "sampling temperature"),
)
NAMES = frozenset(column.name for column in COLUMNS)
SCHEMA = pa.schema(
    [pa.field(c.name, c.dtype, nullable=c.null, metadata={"unit": c.unit, "meaning": c.meaning}) for c in COLUMNS]
)


class Rollouts:
    """The rollouts of the run at `prefix` (runs/<recipe>/seed-<n>). Rows are dicts with exactly the columns."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.store, self.folder = store, f"{prefix}/rollouts"
        self._waiting: dict[int, list[dict[str, Any]]] = {}  # rows by step
        self._read: tuple[str, dict[int, list[dict[str, Any]]]] = ("", {})  # key and rows of the last part read

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Buffer rows for the next `flush`. Steps must be consecutive, and the rows of a step contiguous.

        Errors: ValueError for a missing, unknown or null column, a token without log-probability, or a skipped step.
        """
        for row in rows:
            _require(row)
            step = row["step"]
            if self._waiting and step not in (last := max(self._waiting), last + 1):
                raise ValueError(f"rollouts of step {step} came after those of step {last}: a step was left out")
            self._waiting.setdefault(step, []).append(row)

    def flush(self) -> str | None:
        """Write the buffered rows as one part; returns its key, or None if the buffer is empty.

        Errors: ValueError with the name of a stored part that holds different rows for one of these steps.
        """
        if not self._waiting:
            return None
        first, last = min(self._waiting), max(self._waiting)
        key = f"{self.folder}/steps-{first:08d}-{last:08d}.parquet"
        rows = [row for step in sorted(self._waiting) for row in self._waiting[step]]
        table = _table(rows)
        for begin, end, other in self._parts():
            if begin <= last and first <= end and other != key:
                self._require_same(other, table, max(begin, first), min(end, last))
        try:
            self.store.create(key, _parquet(table))
        except FileExistsError:
            self._require_same(key, table, first, last)
        self._waiting = {}
        return key

    def read(self, step: int) -> list[dict[str, Any]]:
        """The stored rows of a step, in order. Errors: ValueError with the step if there are none."""
        part, rows = self._read
        if step not in rows:
            parts = [key for begin, end, key in self._parts() if begin <= step <= end]
            if not parts:
                raise ValueError(f"{self.store.uri}/{self.folder} holds no rollouts of step {step}")
            part, rows = parts[0], {}
            for row in self._table(part).to_pylist():
                rows.setdefault(row["step"], []).append(row)
            self._read = part, rows
        if step not in rows:
            raise ValueError(f"{part} lacks rollouts of step {step}, which its name says it holds")
        return [dict(row) for row in rows[step]]

    def steps(self) -> list[int]:
        """The steps whose rollouts are stored, in order, from a listing."""
        return sorted({step for begin, end, _ in self._parts() for step in range(begin, end + 1)})

    def problem(self, key: str) -> str:
        """The problem of a stored part in words, empty if there is none. Errors: as `read`."""
        match = _PART.search(key)
        first, last = (int(match[1]), int(match[2])) if match else (0, -1)
        steps = set(self._table(key)["step"].to_pylist())
        return "" if steps == set(range(first, last + 1)) else "does not hold the steps in its name"

    def _parts(self) -> list[tuple[int, int, str]]:
        """(first step, last step, key) of every part, in order."""
        names = [(_PART.match(name), name) for name in self.store.list(self.folder)]
        return [(int(match[1]), int(match[2]), f"{self.folder}/{name}") for match, name in names if match]

    def _table(self, key: str) -> pa.Table:
        """The table of a part. Errors: ValueError with its key if it is damaged or has other columns."""
        data = self.store.read(key)
        try:
            table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = escape_text((str(error).splitlines() or [""])[0])
            raise ValueError(f"{self.store.uri}/{key} cannot be read: {reason}; {REMEDY}") from None
        if not table.schema.equals(SCHEMA):
            raise ValueError(f"{self.store.uri}/{key} has other columns than this version reads: {table.schema.names}")
        return table

    def _require_same(self, key: str, table: pa.Table, first: int, last: int) -> None:
        """Errors: ValueError if the stored rows of these steps differ. Rows are compared: bytes depend on Arrow."""
        stored, now = (_parquet(_between(t, first, last)) for t in (self._table(key), table))
        if stored != now:
            raise ValueError(
                f"{self.store.uri}/{key} holds other rollouts of steps {first} to {last}; "
                "the code or the machine changed: use another OPD_STORE"
            )


def _require(row: dict[str, Any]) -> None:
    where = f"step {row.get('step')} prompt {row.get('prompt_id')} sample {row.get('sample_id')}"
    if wrong := NAMES ^ row.keys():
        raise ValueError(f"the rollout of {where} has missing or unknown columns: {', '.join(sorted(wrong))}")
    if absent := [c.name for c in COLUMNS if _absent(row[c.name], c.null)]:
        raise ValueError(f"the rollout of {where} lacks {', '.join(absent)}")
    if len(row["tokens"]) != len(row["logprob"]):
        raise ValueError(
            f"the rollout of {where} has {len(row['logprob'])} log-probabilities for {len(row['tokens'])} tokens"
        )


def _absent(value: Any, may_be: bool) -> bool:
    return not may_be if value is None else isinstance(value, list) and None in value


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema=SCHEMA)
    except (pa.ArrowException, OverflowError) as error:
        raise ValueError(f"rollouts do not fit their columns: {str(error).splitlines()[0]}") from None


def _between(table: pa.Table, first: int, last: int) -> pa.Table:
    steps = table["step"].to_pylist()
    return table.take([i for i, step in enumerate(steps) if first <= step <= last])


def _parquet(table: pa.Table) -> bytes:
    """A Parquet file; equal rows give equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(table.combine_chunks(), buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()
