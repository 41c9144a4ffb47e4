"""What is said of a run (run.json, end.json, manifests, records), and whether it agrees with itself and what is there.

Nothing is hashed here: what one listing showed, and the JSON objects, are all that is looked at.
"""

import hashlib
import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.lake.lake import partition_key
from pipelines.maintenance import snapshot_checks
from pipelines.maintenance.finding import Finding, damaged, foreign, missing, orphan
from pipelines.maintenance.inventory import Inventory, Item, Run
from pipelines.maintenance.snapshot_checks import Read
from pipelines.store import checksum
from pipelines.store.generations import newest
from pipelines.store.json_object import is_count, parse_json
from pipelines.store.names import repr_short
from pipelines.store.objects import Store
from pipelines.store.snapshot import NEWER, digest
from pipelines.store.trajectory import RECORD, Trajectory

STATE, FACTS = "state.safetensors", "facts.json"  # of moments and of resume states
IMPORT, IMPORT_LAYOUT = "import", 2  # stem and layout of import.json (`pipelines.runs.geometry.records`)
MEASURE = "measure the run again: opd study run STUDY, or opd measure for imported checkpoints"


@dataclass
class Examined:
    """One run, as far as it can be read."""

    trajectory: Trajectory
    items: list[Item]
    reads: dict[int, Read] = field(default_factory=dict)  # manifests by step
    facts: dict[str, Any] | None = None  # run.json
    end: dict[str, Any] | None = None

    @property
    def run(self) -> Run:
        return self.trajectory.recipe, self.trajectory.seed

    def digest(self, step: int) -> str | None:
        read = self.reads.get(step)
        return digest(read.manifest) if read and read.manifest else None


def check_agreement(store: Store, one: Examined, inventory: Inventory) -> list[Finding]:
    """Reads all that is said of a run, and checks that it agrees with itself and with what is there."""
    trajectory, found = one.trajectory, list[Finding]()
    by_kind: dict[str, list[Item]] = {}
    for item in one.items:
        by_kind.setdefault(item.kind, []).append(item)
    for item in by_kind.get("manifest", []):
        assert item.step is not None
        one.reads[item.step] = read = snapshot_checks.read_manifest(trajectory.snapshot(item.step), item.step)
        found += read.findings
    for step, read in one.reads.items():
        if read.manifest:
            found += snapshot_checks.check_relations(trajectory.snapshot(step), read.manifest, one.reads)
    own = [item for item in one.items if item.kind != "table"]
    if "run" in by_kind:
        one.facts, said = _facts(store, by_kind["run"][0].key)
        found += said
    elif own and import_key(one.items) is None:
        found.append(missing(f"{trajectory.prefix}/run.json", f"says what the {len(own)} objects beside it are of"))
    if "end" in by_kind:
        one.end, said = _facts(store, by_kind["end"][0].key)
        found += said if one.end is None else said + _check_end(one, by_kind["end"][0].key)
    return [*found, *_find_incomplete(one, by_kind, "end" in by_kind), *_records(store, one, by_kind, inventory)]


def _facts(store: Store, key: str) -> tuple[dict[str, Any] | None, list[Finding]]:
    data = store.read(key)
    try:
        found = checksum.remove_checksum(data, key)
    except ValueError as error:
        return None, [damaged(key, str(error).removeprefix(f"{key} ").partition("; ")[0])]
    record = posixpath.basename(key) in ("run.json", "end.json")
    if record and (layout := found.get("layout", RECORD)) != RECORD:
        what = f"has layout {repr_short(layout)}, and this version reads {RECORD}"
        return None, [Finding("layout", key, what, NEWER)]
    if not checksum.is_canonical(data):
        return found, [damaged(key, "is spaced otherwise than it was written")]
    identity = found.get("identity")
    if checksum.FIELD not in parse_json(data) and isinstance(identity, dict):  # the fingerprint pins half of it
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        if hashlib.sha256(text.encode()).hexdigest() != found.get("fingerprint"):
            return None, [damaged(key, "has another fingerprint than its identity")]
    return found, []


def _check_end(one: Examined, key: str) -> list[Finding]:
    """Where end.json and the manifests disagree."""
    end, found, trajectory = one.end or {}, [], one.trajectory
    try:
        step, said, steps = int(end["step"]), str(end["digest"]), [int(step) for step in end["snapshots"]]
    except (LookupError, TypeError, ValueError, OverflowError):
        return [damaged(key, "names no step, digest and snapshots")]
    found += [missing(trajectory.snapshot(s).key, f"is named by {key}") for s in steps if s not in one.reads]
    if one.digest(step) not in (None, said):
        holds = str(one.digest(step))[:12]
        found.append(damaged(key, f"says that step {step} holds {said[:12]}, and it holds {holds}"))
    for s in sorted(one.reads.keys() - set(steps)):
        found.append(foreign(trajectory.snapshot(s).key, f"is no snapshot that {key} names"))
    return found


def _find_incomplete(one: Examined, by_kind: Mapping[str, list[Item]], ended: bool) -> list[Finding]:
    """Weights without manifest, states without facts, and resume states that nobody will ask for."""
    found = []
    for item in by_kind.get("weights", []):
        read = one.reads.get(item.step or 0)
        if read is None:
            found.append(orphan(item.key, "has no manifest beside it"))
        elif read.manifest and item.name not in read.manifest["files"]:
            found.append(foreign(item.key, "is not named by the manifest beside it"))
    for kind in ("moments", "resume"):
        folders = folders_of(by_kind.get(kind, []))
        whole = [step for step, names in folders.items() if len(names) == 2]
        for step, names in folders.items():
            for name, item in names.items():
                other = STATE if name == FACTS else FACTS
                if len(names) == 1 and (kind == "moments" or name == FACTS):
                    found.append(missing(f"{posixpath.dirname(item.key)}/{other}", f"belongs beside {item.key}"))
                elif len(names) == 1:
                    found.append(orphan(item.key, f"has no {FACTS} beside it"))
                elif kind == "resume" and ended:
                    found.append(orphan(item.key, "is resume state of a run that is complete"))
                elif kind == "resume" and step < max(whole):
                    found.append(orphan(item.key, f"is resume state that step {max(whole)} superseded"))
    return found


def folders_of(items: Iterable[Item]) -> dict[int, dict[str, Item]]:
    """States by step, each with what is there of it by name."""
    found: dict[int, dict[str, Item]] = {}
    for item in items:
        found.setdefault(item.step or 0, {})[item.name] = item
    return found


def _records(store: Store, one: Examined, by_kind: Mapping[str, list[Item]], inventory: Inventory) -> list[Finding]:
    """What measured.json, transfer.json and import.json vouch for, and is gone or of other weights."""
    found, imported = [], import_key(one.items)
    recipe, seed = one.run
    for item in by_kind.get("record", []):
        if item.name.startswith(IMPORT) and item.key != imported:
            continue  # replaced by a newer one
        facts, said = _facts(store, item.key)
        if facts is None:
            found += [damaged(finding.key, finding.what, MEASURE) for finding in said]
            continue
        if item.key == imported and facts.get("layout") != IMPORT_LAYOUT:
            what = f"has layout {facts.get('layout')!r}, and this version reads {IMPORT_LAYOUT}"
            found.append(Finding("layout", item.key, what, "import under another --name"))
            continue
        try:
            tables, snapshot_stamps = recorded_tables(item.name, facts)
            stamps = {int(step): stamp for step, stamp in snapshot_stamps.items()}
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            found.append(damaged(item.key, "does not say what it was made from", MEASURE))
            continue
        for table in tables:
            if (key := partition_key(table, recipe=recipe, seed=seed)) not in inventory.objects:
                found.append(missing(key, f"is vouched for by {item.key}", MEASURE))
        for step, stamp in stamps.items():
            if one.digest(step) not in (None, stamp):
                found.append(damaged(item.key, f"is of other weights of step {step} than are there", MEASURE))
    return found


def recorded_tables(name: str, facts: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Tables that a record vouches for, and digests of the snapshots they were made from."""
    if name == "measured.json":
        return list(facts["from"]["settings"]["tables"]), dict(facts["from"]["snapshots"])
    if name == "transfer.json":
        return ["transfer"], dict(facts["from"]["snapshots"])
    return (list(facts["tables"]), {}) if name.startswith(IMPORT) else ([], {})


def import_key(items: Iterable[Item]) -> str | None:
    """The record that counts of an imported trajectory, among the objects of its folder; None where it is none."""
    keys = {item.name: item.key for item in items if item.kind == "record"}
    return keys.get(newest(keys, IMPORT) or "")


def recorded_start(one: Examined) -> tuple[dict[str, Any], Any]:
    """What run.json says that the run began from, and the digest of that."""
    facts = one.facts or {}
    identity, inputs = facts.get("identity"), facts.get("inputs")
    start = identity.get("start") if isinstance(identity, dict) else None
    return start if isinstance(start, dict) else {}, inputs.get("start") if isinstance(inputs, dict) else None


def check_start(one: Examined, examined: Mapping[Run, Examined]) -> list[Finding]:
    """Where the run that this one began from holds other weights by now than those it was made from."""
    start, said = recorded_start(one)
    if start.get("kind") not in ("final", "snapshot"):
        return []
    seed = one.run[1] if start.get("seed") is None else start["seed"]
    source = examined.get((str(start.get("recipe")), seed)) if is_count(seed) else None
    step = (source.end or {}).get("step") if source and start["kind"] == "final" else start.get("step")
    if source is None or not is_count(step) or source.digest(step) in (None, said):
        return []
    key, found = source.trajectory.snapshot(step).key, source.digest(step)
    name, number = one.run
    remedy = (
        f"bring back what it began from (opd rm {start['recipe']}/{seed} --undo, or `opd import`), or move the run "
        f"aside and train it again: opd rm {name}/{number}"
    )
    return [damaged(key, f"holds {str(found)[:12]}, and {name} seed {number} began from {str(said)[:12]}", remedy)]
