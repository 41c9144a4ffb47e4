"""Checks objects other than snapshots against their checksum, format or name.

moments    SHA-256 in facts.json, which has a checksum (or, of earlier versions, the file header)
resume     its header, facts.json
rollouts   the format's page checksums, columns, and the steps in its name
part       its name is its SHA-256
table      the format, the declared columns, and the keys of its partition; of an import, the SHA-256 in its record
base       size and SHA-256 in the .json beside it
model      safetensors headers, JSON; its digest where a run began from it (`audit`)
"""

import hashlib
import posixpath
from collections.abc import Callable
from typing import Any

from pipelines.lake.lake import REMEDY as TABLE
from pipelines.maintenance.finding import AGAIN, Finding, damaged
from pipelines.maintenance.inventory import Item
from pipelines.maintenance.run_checks import IMPORT
from pipelines.maintenance.snapshot_checks import sha256
from pipelines.store import checksum
from pipelines.store.generations import Generations
from pipelines.store.json_object import parse_json
from pipelines.store.objects import Store
from pipelines.store.rollouts import Rollouts
from pipelines.store.tensors import read_header
from pipelines.store.trajectory import RESUME, Trajectory

Heard = Callable[[int], None]  # is called with the number of bytes read


def check_object(store: Store, item: Item, heard: Heard = lambda count: None) -> list[Finding]:
    """Findings about the content of an object whose kind is in KINDS. Errors: FileNotFoundError."""
    try:
        problem = _CHECKS[item.kind](store, item)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition("; ")[0]
        problem = f"is not read ({reason.removeprefix(f'{store.uri}/').removeprefix(item.key).strip(' :')})"
    heard(store.size(item.key))
    return [damaged(item.key, problem, REMEDIES.get(item.kind, checksum.REMEDY))] if problem else []


def _state(store: Store, item: Item) -> str:
    """The problem of a file of moments or of a resume state."""
    if item.name == "facts.json":
        checksum.remove_checksum(store.read(item.key), item.key, marker="state")
        return ""
    read_header(store, item.key)
    facts = f"{posixpath.dirname(item.key)}/facts.json"
    if not store.exists(facts):
        return ""
    expected = checksum.remove_checksum(store.read(facts), facts, marker="state").get("state")
    return "" if expected in (None, sha256(store, item.key)[1]) else f"has another SHA-256 than {facts} says"


def _rollouts(store: Store, item: Item) -> str:
    return Rollouts(store, posixpath.dirname(posixpath.dirname(item.key))).problem(item.key)


def _part(store: Store, item: Item) -> str:
    sha = sha256(store, item.key)[1][:24]
    return "" if item.name.startswith(sha) else f"has SHA-256 {sha}, which should be its name"


def _table(store: Store, item: Item) -> str:
    from pipelines.lake.lake import read_object
    from pipelines.lake.record_checks import find_disagreement
    from pipelines.lake.schemas import TABLES

    _, name, *keys, _ = item.key.split("/")
    data = store.read(item.key)
    try:
        frame = read_object(data, TABLES[name])
    except ValueError as error:
        return str(error)
    for key, value in (part.split("=", 1) for part in keys):
        if key in frame.columns and (others := set(map(str, frame[key].unique())) - {value, "None"}):
            return f"holds rows of {key} {min(others)}"
    record = _recorded_tables(store, item).get(name)
    return find_disagreement(name, data, record) if record else ""


def _recorded_tables(store: Store, item: Item) -> dict[str, Any]:
    """The entries of an import record by table; empty if there is no readable record."""
    if item.run is None:
        return {}
    try:
        tables = parse_json(Generations(store, f"{Trajectory(store, *item.run).prefix}/{IMPORT}").read()[1])["tables"]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return {}
    return tables if isinstance(tables, dict) else {}


def _base(store: Store, item: Item) -> str:
    stem, end = posixpath.splitext(item.key)
    if item.key.startswith("bases/by-source/"):
        return "" if store.size(item.key) == 0 else "is not empty"
    facts = parse_json(store.read(f"{stem}.json")) if store.exists(f"{stem}.json") else None
    if facts is None or not store.exists(f"{stem}.safetensors"):
        return f"lacks its {'.safetensors' if end == '.json' else '.json'}"
    if end == ".json":
        return ""
    return "" if sha256(store, item.key) == (facts["size"], facts["sha256"]) else "is not what its .json says"


def _model(store: Store, item: Item) -> str:
    if item.key.endswith(".safetensors"):
        read_header(store, item.key)
    elif item.key.endswith(".json"):
        parse_json(store.read(item.key))
    return ""


def digest_of_model(store: Store, folder: str) -> str:
    """SHA-256 over the names and contents of a folder's safetensors files, as runs that start from it record it."""
    total = hashlib.sha256()
    for name in store.list(folder):
        if name.endswith(".safetensors"):
            total.update(name.encode())
            total.update(bytes.fromhex(sha256(store, f"{folder}/{name}")[1]))
    return total.hexdigest()


_CHECKS: dict[str, Callable[[Store, Item], str]] = {
    "moments": _state,
    "resume": _state,
    "rollouts": _rollouts,
    "part": _part,
    "table": _table,
    "base": _base,
    "model": _model,
}
KINDS = tuple(_CHECKS)
REMEDIES = {"resume": RESUME, "part": AGAIN, "base": AGAIN, "table": TABLE}
