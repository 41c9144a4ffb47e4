"""import.json: the checkpoints of an imported trajectory, and the weights that each of its tables is made from.

runs/external.<name>/seed-0/import.json, then import-<8 digits>.json (`pipelines.store.generations`)
  base        ref, stamp
  snapshots   step: ref, stamp, notes of pairing, absent (weights of the base that were not comparable)
  tables      table: engine, settings, roles, steps (stamp by step), problems, sha256 of its file

The record is written before its tables. A table with another SHA-256 belongs to an earlier or a later record.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from pipelines.lake.lake import partition_key
from pipelines.lake.record_checks import find_disagreement
from pipelines.store.checkpoints import Checkpoint
from pipelines.store.generations import NONE, Generations
from pipelines.store.json_object import parse_object
from pipelines.store.names import LONGEST, escape_text, repr_short
from pipelines.store.objects import Store
from pipelines.studies.study import Measurement

LAYOUT = 2  # version of import.json
ANOTHER = "import under another --name"

Record = dict[str, Any]


def prefix(recipe: str) -> str:
    """Where an imported trajectory lies in the store; the same place as for a run of this project."""
    return f"runs/{recipe}/seed-0"


def record_generations(store: Store, recipe: str) -> Generations:
    """The records of an imported trajectory; each generation replaces the one before."""
    return Generations(store, f"{prefix(recipe)}/import")


def write(store: Store, recipe: str, record: Record, after: int) -> int:
    """Replace the record of number `after`; returns the new number. Errors: FileExistsError if there is a newer one."""
    return record_generations(store, recipe).append((json.dumps(record, indent=1) + "\n").encode(), after)


def read(store: Store, recipe: str) -> Record | None:
    """The newest record, or None. Errors: as `newest`."""
    return read_newest(store, recipe)[1]


def read_newest(store: Store, recipe: str) -> tuple[int, Record | None]:
    """The newest record and its number; NONE and None if there is none.

    Errors: ValueError for a record of another layout, or a damaged one.
    """
    records = record_generations(store, recipe)
    try:
        number, data = records.read()
    except (FileNotFoundError, NotADirectoryError):
        return NONE, None
    return number, _parse_record(data, records.key(number))


def _parse_record(data: bytes, key: str) -> Record:
    stored = parse_object(data, key, ANOTHER)
    if stored.get("layout") != LAYOUT:
        layout = repr_short(stored.get("layout"))
        raise ValueError(f"{key} has layout {layout} and this version reads {LAYOUT}; {ANOTHER}")
    try:
        right = next((False for fits in _parts(stored) if not fits), True)
    except (LookupError, TypeError, AttributeError):
        right = False
    if not right:
        raise ValueError(f"{key} does not say what it was made from; {ANOTHER}")
    return stored


def parse_fields(store: Store, key: str) -> Record:
    """The fields of a record that is made again when damaged; none if it is damaged or absent."""
    try:
        return parse_object(store.read(key), key, "")
    except (FileNotFoundError, ValueError):
        return {}


def _parts(record: Record) -> Iterator[bool]:
    """Whether each part of a record has the right form."""
    yield all(isinstance(record["base"][name], str) for name in ("ref", "stamp"))
    for step, found in record["snapshots"].items():
        yield bool(re.fullmatch(r"[1-9]\d{0,18}", step, re.ASCII))
        yield all(isinstance(found[name], str) for name in ("ref", "stamp"))
        yield all(isinstance(one, str) for name in ("notes", "absent") for one in found[name])
        yield isinstance(found["notes"], list) and isinstance(found["absent"], list)
    for made in record["tables"].values():
        yield isinstance(made["steps"], dict) and {"engine", "settings", "roles"} <= made.keys()
        yield all(isinstance(problem, str) for problem in made["problems"])


def of_table(record: Record, measurement: Measurement, engine: int, roles: tuple[str, ...] | None) -> Record:
    """The inputs that a table of all snapshots of a record would have now."""
    return {
        "engine": engine,
        "settings": measurement.settings,
        "roles": None if roles is None else list(roles),
        "steps": {step: found["stamp"] for step, found in record["snapshots"].items()},
    }


def matches_rows(stored: Record, store: Store, recipe: str, table: str, made_from: Record) -> bool:
    """Whether the rows of a table exist and are of these weights, settings and engine."""
    found = stored["tables"].get(table)
    if found is None or {name: found[name] for name in made_from} != made_from:
        return False
    try:
        return not find_disagreement(table, store.read(partition_key(table, recipe=recipe, seed=0)), found)
    except FileNotFoundError:
        return False


def require_extends(stored: Record, recipe: str, start: Checkpoint, given: dict[int, Checkpoint]) -> None:
    """Errors: ValueError when the record is of another base or has other contents at a given step."""
    if stored["base"]["stamp"] != start.stamp:
        raise ValueError(
            f"{recipe} was imported with the base {_format_value(stored['base'])}, not with "
            f"{start.ref} ({start.stamp[:12]}), or that was written again; choose another --name"
        )
    for step, checkpoint in given.items():
        before = stored["snapshots"].get(str(step))
        if before and before["stamp"] != checkpoint.stamp:
            raise ValueError(
                f"{recipe} has other weights at step {step} ({_format_value(before)}) than {checkpoint.ref} "
                f"({checkpoint.stamp[:12]}), or they were written again; choose another --name or the right step"
            )


def require_unchanged(step: int, recorded: Record, found: Checkpoint) -> None:
    """Errors: ValueError when a recorded snapshot has changed."""
    if found.stamp != recorded["stamp"]:
        recorded_stamp = escape_text(recorded["stamp"][:12])
        raise ValueError(
            f"{found} has changed since it was imported ({recorded_stamp}, now {found.stamp[:12]}); {remedy(step)}"
        )


def remedy(step: int) -> str:
    """The remedy for a recorded snapshot that is gone."""
    return f"give it as --snapshot {step}=REF where it lies now, or import what is at hand under another --name"


def _format_value(recorded: Record) -> str:
    return escape_text(f"{recorded['ref'][:LONGEST]} ({recorded['stamp'][:12]})")
