"""import.json: what an imported trajectory is made of, and which of its tables are of which weights.

runs/external.<name>/seed-0/import.json
  base        ref, stamp
  snapshots   step: ref, stamp, notes of pairing, absent (weights of the base that were not comparable)
  tables      table: engine, settings, roles, steps (stamp by step), problems; exists if and only if the rows do
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pipelines.lake.lake import partition_key
from pipelines.store.checkpoints import Checkpoint
from pipelines.store.document import facts
from pipelines.store.names import LONGEST, escaped, shown
from pipelines.store.objects import Store
from pipelines.studies.study import Measurement

LAYOUT = 2  # version of import.json
ANOTHER = "import under another --name"

Record = dict[str, Any]


def prefix(recipe: str) -> str:
    """Where an imported trajectory lies in the store, which is where one of this project's would."""
    return f"runs/{recipe}/seed-0"


def key(recipe: str) -> str:
    return f"{prefix(recipe)}/import.json"


def write(store: Store, recipe: str, record: Record) -> None:
    store.write(key(recipe), (json.dumps(record, indent=1) + "\n").encode())


def read(store: Store, recipe: str) -> Record | None:
    """Errors: ValueError for a record of another layout, or one that is not what was written."""
    try:
        stored = facts(store.read(key(recipe)), key(recipe), ANOTHER)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stored.get("layout") != LAYOUT:
        layout = shown(stored.get("layout"))
        raise ValueError(f"{key(recipe)} has layout {layout} and this version reads {LAYOUT}; {ANOTHER}")
    try:
        right = next((False for fits in _parts(stored) if not fits), True)
    except (LookupError, TypeError, AttributeError):
        right = False
    if not right:
        raise ValueError(f"{key(recipe)} does not say what it was made from; {ANOTHER}")
    return stored


def kept(store: Store, key: str) -> Record:
    """The fields of a record that is made again when it is damaged: none where it is, or is absent."""
    try:
        return facts(store.read(key), key, "")
    except (FileNotFoundError, ValueError):
        return {}


def _parts(record: Record) -> Iterator[bool]:
    """Whether each part of a record can be one."""
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
    """What a table made now, of all snapshots of a record, would be made from."""
    return {
        "engine": engine,
        "settings": {name: list(value) for name, value in asdict(measurement).items() if name != "tables"},
        "roles": None if roles is None else list(roles),
        "steps": {step: found["stamp"] for step, found in record["snapshots"].items()},
    }


def vouches(stored: Record, store: Store, recipe: str, table: str, made_from: Record) -> bool:
    """Whether the rows of a table are there and of these weights, settings and engine."""
    found = stored["tables"].get(table)
    if found is None or {name: found[name] for name in made_from} != made_from:
        return False
    return store.exists(partition_key(table, recipe=recipe, seed=0))


def require_extends(stored: Record, recipe: str, start: Checkpoint, given: dict[int, Checkpoint]) -> None:
    """Errors: ValueError when the record is of another base or has other contents at a given step."""
    if stored["base"]["stamp"] != start.stamp:
        raise ValueError(
            f"{recipe} was imported with the base {_shown(stored['base'])}, not with "
            f"{start.ref} ({start.stamp[:12]}), or that was written again; choose another --name"
        )
    for step, checkpoint in given.items():
        before = stored["snapshots"].get(str(step))
        if before and before["stamp"] != checkpoint.stamp:
            raise ValueError(
                f"{recipe} has other weights at step {step} ({_shown(before)}) than {checkpoint.ref} "
                f"({checkpoint.stamp[:12]}), or they were written again; choose another --name or the right step"
            )


def require_unchanged(step: int, recorded: Record, found: Checkpoint) -> None:
    """Errors: ValueError when a recorded snapshot is not what it was."""
    if found.stamp != recorded["stamp"]:
        raise ValueError(
            f"{found} has changed since it was imported ({escaped(recorded['stamp'][:12])}, now {found.stamp[:12]}); "
            f"{remedy(step)}"
        )


def remedy(step: int) -> str:
    """What to do about a recorded snapshot that is not there any more."""
    return f"give it as --snapshot {step}=REF where it lies now, or import what is at hand under another --name"


def _shown(recorded: Record) -> str:
    return escaped(f"{recorded['ref'][:LONGEST]} ({recorded['stamp'][:12]})")
