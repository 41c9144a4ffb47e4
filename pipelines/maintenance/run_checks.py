"""Checks that a run's run.json, end.json, manifests and records agree with each other and with the listed objects.

Reads only JSON objects and one listing of the store; hashes no weights.
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
    """The readable parts of one run. facts: run.json; end: end.json; reads: manifests by step."""

    trajectory: Trajectory
    items: list[Item]
    reads: dict[int, Read] = field(default_factory=dict)
    facts: dict[str, Any] | None = None
    end: dict[str, Any] | None = None

    @property
    def run(self) -> Run:
        return self.trajectory.recipe, self.trajectory.seed

    def digest(self, step: int) -> str | None:
        read = self.reads.get(step)
        return digest(read.manifest) if read and read.manifest else None


def check_agreement(store: Store, run: Examined, inventory: Inventory) -> list[Finding]:
    """Read a run's JSON objects into `run`, and check that they agree with each other and with the inventory."""
    trajectory, findings = run.trajectory, list[Finding]()
    by_kind: dict[str, list[Item]] = {}
    for item in run.items:
        by_kind.setdefault(item.kind, []).append(item)
    for item in by_kind.get("manifest", []):
        assert item.step is not None
        run.reads[item.step] = read = snapshot_checks.read_manifest(trajectory.snapshot(item.step), item.step)
        findings += read.findings
    for step, read in run.reads.items():
        if read.manifest:
            findings += snapshot_checks.check_relations(trajectory.snapshot(step), read.manifest, run.reads)
    own = [item for item in run.items if item.kind != "table"]
    if "run" in by_kind:
        run.facts, more = _facts(store, by_kind["run"][0].key)
        findings += more
    elif own and import_key(run.items) is None:
        findings.append(missing(f"{trajectory.prefix}/run.json", f"says what the {len(own)} objects beside it are of"))
    if "end" in by_kind:
        run.end, more = _facts(store, by_kind["end"][0].key)
        findings += more if run.end is None else more + _check_end(run, by_kind["end"][0].key)
    return [*findings, *_find_incomplete(run, by_kind, "end" in by_kind), *_records(store, run, by_kind, inventory)]


def _facts(store: Store, key: str) -> tuple[dict[str, Any] | None, list[Finding]]:
    data, record = store.read(key), posixpath.basename(key) in ("run.json", "end.json")
    try:
        facts = checksum.remove_checksum(data, key, marker="layout" if record else None)
    except ValueError as error:
        return None, [damaged(key, str(error).removeprefix(f"{key} ").partition("; ")[0])]
    if record and (layout := facts.get("layout", RECORD)) != RECORD:
        what = f"has layout {repr_short(layout)}, and this version reads {RECORD}"
        return None, [Finding("layout", key, what, NEWER)]
    if not checksum.is_canonical(data):
        return facts, [damaged(key, "is spaced otherwise than it was written")]
    identity = facts.get("identity")
    if checksum.FIELD not in parse_json(data) and isinstance(identity, dict):  # of an earlier version, no checksum
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        if hashlib.sha256(text.encode()).hexdigest() != facts.get("fingerprint"):
            return None, [damaged(key, "has another fingerprint than its identity")]
    return facts, []


def _check_end(run: Examined, key: str) -> list[Finding]:
    """Findings where end.json and the manifests disagree."""
    end, findings, trajectory = run.end or {}, [], run.trajectory
    try:
        step, expected, steps = int(end["step"]), str(end["digest"]), [int(step) for step in end["snapshots"]]
    except (LookupError, TypeError, ValueError, OverflowError):
        return [damaged(key, "names no step, digest and snapshots")]
    findings += [missing(trajectory.snapshot(s).key, f"is named by {key}") for s in steps if s not in run.reads]
    if run.digest(step) not in (None, expected):
        holds = str(run.digest(step))[:12]
        findings.append(damaged(key, f"says that step {step} holds {expected[:12]}, and it holds {holds}"))
    for s in sorted(run.reads.keys() - set(steps)):
        findings.append(foreign(trajectory.snapshot(s).key, f"is no snapshot that {key} names"))
    return findings


def _find_incomplete(run: Examined, by_kind: Mapping[str, list[Item]], ended: bool) -> list[Finding]:
    """Findings about weights without a manifest, states without facts, and superseded resume states."""
    findings = []
    for item in by_kind.get("weights", []):
        read = run.reads.get(item.step or 0)
        if read is None:
            findings.append(orphan(item.key, "has no manifest beside it"))
        elif read.manifest and item.name not in read.manifest["files"]:
            findings.append(foreign(item.key, "is not named by the manifest beside it"))
    for kind in ("moments", "resume"):
        folders = folders_of(by_kind.get(kind, []))
        whole = [step for step, names in folders.items() if len(names) == 2]
        for step, names in folders.items():
            for name, item in names.items():
                other = STATE if name == FACTS else FACTS
                if len(names) == 1 and (kind == "moments" or name == FACTS):
                    findings.append(missing(f"{posixpath.dirname(item.key)}/{other}", f"belongs beside {item.key}"))
                elif len(names) == 1:
                    findings.append(orphan(item.key, f"has no {FACTS} beside it"))
                elif kind == "resume" and ended:
                    findings.append(orphan(item.key, "is resume state of a run that is complete"))
                elif kind == "resume" and step < max(whole):
                    findings.append(orphan(item.key, f"is resume state that step {max(whole)} superseded"))
    return findings


def folders_of(items: Iterable[Item]) -> dict[int, dict[str, Item]]:
    """The objects of states: by step, then by file name."""
    folders: dict[int, dict[str, Item]] = {}
    for item in items:
        folders.setdefault(item.step or 0, {})[item.name] = item
    return folders


def _records(
    store: Store, examined: Examined, by_kind: Mapping[str, list[Item]], inventory: Inventory
) -> list[Finding]:
    """Findings about tables that measured.json, transfer.json or import.json list, but that are missing or outdated."""
    findings, imported = [], import_key(examined.items)
    recipe, seed = examined.run
    for item in by_kind.get("record", []):
        if item.name.startswith(IMPORT) and item.key != imported:
            continue  # superseded by a newer record
        facts, problems = _facts(store, item.key)
        if facts is None:
            findings += [damaged(finding.key, finding.what, MEASURE) for finding in problems]
            continue
        if item.key == imported and facts.get("layout") != IMPORT_LAYOUT:
            what = f"has layout {facts.get('layout')!r}, and this version reads {IMPORT_LAYOUT}"
            findings.append(Finding("layout", item.key, what, "import under another --name"))
            continue
        try:
            tables, snapshot_stamps = recorded_tables(item.name, facts)
            stamps = {int(step): stamp for step, stamp in snapshot_stamps.items()}
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            findings.append(damaged(item.key, "does not say what it was made from", MEASURE))
            continue
        for table in tables:
            if (key := partition_key(table, recipe=recipe, seed=seed)) not in inventory.objects:
                findings.append(missing(key, f"is vouched for by {item.key}", MEASURE))
        for step, stamp in stamps.items():
            if examined.digest(step) not in (None, stamp):
                findings.append(damaged(item.key, f"is of other weights of step {step} than are there", MEASURE))
    return findings


def recorded_tables(name: str, facts: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The tables that a record lists, and the digests of the snapshots they were computed from, by step."""
    if name == "measured.json":
        return list(facts["from"]["settings"]["tables"]), dict(facts["from"]["snapshots"])
    if name == "transfer.json":
        return ["transfer"], dict(facts["from"]["snapshots"])
    return (list(facts["tables"]), {}) if name.startswith(IMPORT) else ([], {})


def import_key(items: Iterable[Item]) -> str | None:
    """The key of the newest import record among a run's objects; None if the run is no import."""
    keys = {item.name: item.key for item in items if item.kind == "record"}
    return keys.get(newest(keys, IMPORT) or "")


def recorded_start(examined_run: Examined) -> tuple[dict[str, Any], Any]:
    """The start of a run from run.json (`identity.start`), and the recorded digest of its weights."""
    facts = examined_run.facts or {}
    identity, inputs = facts.get("identity"), facts.get("inputs")
    start = identity.get("start") if isinstance(identity, dict) else None
    return start if isinstance(start, dict) else {}, inputs.get("start") if isinstance(inputs, dict) else None


def check_start(examined_run: Examined, examined: Mapping[Run, Examined]) -> list[Finding]:
    """A finding if the run that this one started from now holds other weights than recorded."""
    start, recorded = recorded_start(examined_run)
    if start.get("kind") not in ("final", "snapshot"):
        return []
    seed = examined_run.run[1] if start.get("seed") is None else start["seed"]
    source = examined.get((str(start.get("recipe")), seed)) if is_count(seed) else None
    step = (source.end or {}).get("step") if source and start["kind"] == "final" else start.get("step")
    if source is None or not is_count(step) or source.digest(step) in (None, recorded):
        return []
    key, stored = source.trajectory.snapshot(step).key, source.digest(step)
    name, number = examined_run.run
    remedy = (
        f"bring back what it began from (opd rm {start['recipe']}/{seed} --undo, or `opd import`), or move the run "
        f"aside and train it again: opd rm {name}/{number}"
    )
    return [damaged(key, f"holds {str(stored)[:12]}, and {name} seed {number} began from {str(recorded)[:12]}", remedy)]
