"""Verification of a store: every object is explained by the layout, is there, and is what was written.

Names, run.json, end.json, records and manifests are always read. Everything else is read again and hashed: all of it,
or a sample drawn with a seed. What is found is said of the store as one listing showed it, so a run that is being
trained may show what it is just writing.
"""

import hashlib
import json
import math
import posixpath
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.keeping import others, snapshots
from pipelines.keeping.finding import Finding, damaged, foreign, missing, orphan
from pipelines.keeping.inventory import Inventory, Item, Run, classify
from pipelines.keeping.snapshots import Read
from pipelines.lake.lake import partition_key
from pipelines.lake.schemas import TABLES
from pipelines.store import seal
from pipelines.store.objects import Listed, Store
from pipelines.store.snapshot import Snapshot, digest
from pipelines.store.trajectory import Trajectory

STATE, FACTS = "state.safetensors", "facts.json"  # of moments and of resume states
IMPORT_LAYOUT = 2  # of import.json (`pipelines.runs.records`)
MEASURE = "measure the run again: opd study run STUDY, or opd measure for imported checkpoints"

Progress = Callable[[int, int], None]  # bytes read and in all


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found. objects, nbytes: listed. snapshots: committed; hashed: read again of these; read: bytes."""

    findings: tuple[Finding, ...]
    objects: int
    nbytes: int
    snapshots: int
    hashed: int
    read: int


@dataclass
class _Run:
    """One run, as far as it can be read."""

    run: Run
    items: list[Item]
    reads: dict[int, Read] = field(default_factory=dict)  # manifests by step
    facts: dict[str, Any] | None = None  # run.json
    end: dict[str, Any] | None = None

    def digest(self, step: int) -> str | None:
        read = self.reads.get(step)
        return digest(read.manifest) if read and read.manifest else None


def audit(
    store: Store,
    *,
    runs: Collection[Run] | None = None,
    sample: int | float | None = None,
    seed: int = 0,
    deep: bool = False,
    progress: Progress = lambda done, of: None,
) -> Audit:
    """Look at the whole store, or at some runs.

    sample: how many objects to read again (snapshots and all else that is hashed), or which share below 1; None is all.
    deep: weights are decoded, too. Errors: ValueError for a run that is not there.
    """
    inventory = listed(store, runs)
    found = [_unexplained(item) for item in inventory.of("temporary", "foreign")]
    examined = {run: _Run(run, items) for run, items in inventory.runs().items()}
    for one in examined.values():
        found += _registered(store, one, inventory)
    for one in examined.values():
        found += _inputs(store, one, examined)
    targets = _targets(inventory, examined)
    chosen = drawn(sorted(targets), sample, seed)
    of, done = sum(inventory.nbytes(targets[target]) for target in chosen), 0

    def heard(count: int) -> None:
        nonlocal done
        done += count
        progress(min(done, of), of)

    hashed = 0
    for target in chosen:
        keys = targets[target]
        try:
            if target.endswith("/manifest.json"):
                hashed += 1
                found += _weights(store, target, keys, examined, heard, deep=deep)
            else:
                found += others.check(store, classify(target), heard)
        except FileNotFoundError:
            found.append(missing(target, "was there when the store was listed"))
    if sample is None:
        found += _began(store, inventory, examined.values())
    committed = sum(len(one.reads) for one in examined.values())
    return Audit(
        findings=tuple(sorted(set(found))),
        objects=len(inventory.objects),
        nbytes=inventory.nbytes(inventory.objects),
        snapshots=committed,
        hashed=hashed,
        read=done,
    )


def listed(store: Store, runs: Collection[Run] | None = None) -> Inventory:
    """What a store holds, or what it holds of some runs. Errors: ValueError for a run that is not there."""
    if runs is None:
        return Inventory(store.listing(""))
    objects: dict[str, Listed] = {}
    for recipe, seed in runs:
        found = store.listing(f"{Trajectory(store, recipe, seed).prefix}/")
        if not found:
            raise ValueError(f"{store.uri} holds no run {recipe} seed {seed}; {there(store, recipe)}")
        objects |= found
        for table, declared in TABLES.items():
            key = partition_key(table, recipe=recipe, seed=seed)
            if "recipe" in declared.by and store.exists(key):
                objects |= store.listing(posixpath.dirname(key))
    return Inventory(objects)


def there(store: Store, recipe: str) -> str:
    """Which runs there are instead, in words."""
    seeds = [name.removeprefix("seed-") for name in store.list(f"runs/{recipe}")]
    return f"it has seed {', '.join(seeds)}" if seeds else f"it has {', '.join(store.list('runs')) or 'none'}"


def drawn(targets: list[str], sample: int | float | None, seed: int) -> list[str]:
    """The targets to look at, in order."""
    if sample is None:
        return targets
    count = math.ceil(sample * len(targets)) if isinstance(sample, float) else sample
    return sorted(random.Random(seed).sample(targets, min(count, len(targets))))


def _unexplained(item: Item) -> Finding:
    if item.kind == "temporary":
        return orphan(item.key, "is what a write that was killed left behind")
    return foreign(item.key, "is no object of this project")


def _registered(store: Store, one: _Run, inventory: Inventory) -> list[Finding]:
    """Reads all that is said of a run, and checks that it agrees with itself and with what is there."""
    trajectory, found = Trajectory(store, *one.run), list[Finding]()
    by_kind: dict[str, list[Item]] = {}
    for item in one.items:
        by_kind.setdefault(item.kind, []).append(item)
    for item in by_kind.get("manifest", []):
        assert item.step is not None
        one.reads[item.step] = read = snapshots.read_manifest(trajectory.snapshot(item.step), item.step)
        found += read.findings
    for step, read in one.reads.items():
        if read.manifest:
            found += snapshots.relations(trajectory.snapshot(step), read.manifest, one.reads)
    own = [item for item in one.items if item.kind != "table"]
    imported = f"{trajectory.prefix}/import.json"
    if "run" in by_kind:
        one.facts, said = _facts(store, by_kind["run"][0].key)
        found += said
    elif own and imported not in inventory.objects:
        found.append(missing(f"{trajectory.prefix}/run.json", f"says what the {len(own)} objects beside it are of"))
    if "end" in by_kind:
        one.end, said = _facts(store, by_kind["end"][0].key)
        found += said if one.end is None else said + _ended(one, by_kind["end"][0].key, trajectory)
    return [*found, *_loose(one, by_kind, "end" in by_kind), *_records(store, one, by_kind, inventory)]


def _facts(store: Store, key: str) -> tuple[dict[str, Any] | None, list[Finding]]:
    data = store.read(key)
    try:
        found = seal.opened(data, key)
    except ValueError as error:
        return None, [damaged(key, str(error).removeprefix(f"{key} ").partition("; ")[0])]
    if not seal.spaced(data):
        return found, [damaged(key, "is spaced otherwise than it was written")]
    identity = found.get("identity")
    if seal.FIELD not in json.loads(data) and isinstance(identity, dict):  # the fingerprint pins half of it
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        if hashlib.sha256(text.encode()).hexdigest() != found.get("fingerprint"):
            return None, [damaged(key, "has another fingerprint than its identity")]
    return found, []


def _ended(one: _Run, key: str, trajectory: Trajectory) -> list[Finding]:
    """Where end.json and the manifests disagree."""
    end, found = one.end or {}, []
    try:
        step, said, steps = int(end["step"]), str(end["digest"]), [int(step) for step in end["snapshots"]]
    except (LookupError, TypeError, ValueError):
        return [damaged(key, "names no step, digest and snapshots")]
    found += [missing(trajectory.snapshot(s).key, f"is named by {key}") for s in steps if s not in one.reads]
    if one.digest(step) not in (None, said):
        holds = str(one.digest(step))[:12]
        found.append(damaged(key, f"says that step {step} holds {said[:12]}, and it holds {holds}"))
    for s in sorted(one.reads.keys() - set(steps)):
        found.append(foreign(trajectory.snapshot(s).key, f"is no snapshot that {key} names"))
    return found


def _loose(one: _Run, by_kind: Mapping[str, list[Item]], ended: bool) -> list[Finding]:
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


def _records(store: Store, one: _Run, by_kind: Mapping[str, list[Item]], inventory: Inventory) -> list[Finding]:
    """What measured.json, transfer.json and import.json vouch for, and is gone or of other weights."""
    found = []
    recipe, seed = one.run
    for item in by_kind.get("record", []):
        facts, said = _facts(store, item.key)
        if facts is None:
            found += [damaged(finding.key, finding.what, MEASURE) for finding in said]
            continue
        if item.name == "import.json" and facts.get("layout") != IMPORT_LAYOUT:
            what = f"has layout {facts.get('layout')!r}, and this version reads {IMPORT_LAYOUT}"
            found.append(Finding("layout", item.key, what, "import under another --name"))
            continue
        try:
            tables, stamps = vouched(item.name, facts)
        except (LookupError, TypeError, AttributeError):
            found.append(damaged(item.key, "does not say what it was made from", MEASURE))
            continue
        for table in tables:
            if (key := partition_key(table, recipe=recipe, seed=seed)) not in inventory.objects:
                found.append(missing(key, f"is vouched for by {item.key}", MEASURE))
        for step, stamp in stamps.items():
            if one.digest(int(step)) not in (None, stamp):
                found.append(damaged(item.key, f"is of other weights of step {step} than are there", MEASURE))
    return found


def vouched(name: str, facts: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Tables that a record vouches for, and digests of the snapshots they were made from."""
    if name == "measured.json":
        return list(facts["from"]["settings"]["tables"]), dict(facts["from"]["snapshots"])
    if name == "transfer.json":
        return ["transfer"], dict(facts["from"]["snapshots"])
    return (list(facts["tables"]), {}) if name == "import.json" else ([], {})


def _inputs(store: Store, one: _Run, examined: Mapping[Run, _Run]) -> list[Finding]:
    """Where the run that this one began from holds other weights by now than those it was made from."""
    start = ((one.facts or {}).get("identity") or {}).get("start") or {}
    said = ((one.facts or {}).get("inputs") or {}).get("start")
    if start.get("kind") not in ("final", "snapshot"):
        return []
    seed = one.run[1] if start.get("seed") is None else start["seed"]
    source = examined.get((start["recipe"], seed))
    step = (source.end or {}).get("step") if source and start["kind"] == "final" else start.get("step")
    found = source.digest(step) if source and step is not None else None
    if source is None or found in (None, said):
        return []
    prefix = Trajectory(store, *source.run).snapshot(step).key
    return [damaged(prefix, f"holds {str(found)[:12]}, and {one.run[0]} seed {one.run[1]} began from {str(said)[:12]}")]


def _targets(inventory: Inventory, examined: Mapping[Run, _Run]) -> dict[str, list[str]]:
    """What can be read again and hashed: keys by the object that a sample draws, a manifest for a snapshot's files."""
    found = {item.key: [item.key] for item in inventory.of(*others.KINDS)}
    for one in examined.values():
        files = {}
        for item in one.items:
            if item.kind == "weights":
                files.setdefault(item.step, []).append(item.key)
        for item in one.items:
            read = one.reads.get(item.step or 0)
            if item.kind == "manifest" and read and read.manifest:
                found[item.key] = files.get(item.step, [])
    return found


def _weights(
    store: Store, key: str, keys: list[str], examined: Mapping[Run, _Run], heard: Callable[[int], None], *, deep: bool
) -> list[Finding]:
    """Of one committed snapshot, by the key of its manifest."""
    folder = posixpath.dirname(key)
    recipe, seed, step = folder.split("/")[1], int(folder.split("/")[2][5:]), int(folder[-8:])
    one, snapshot = examined[recipe, seed], Snapshot(store, folder)
    manifest = one.reads[step].manifest
    assert manifest is not None
    beside = one.reads.get((manifest.get("base") or {}).get("step", step))
    fits = beside is not None and beside.manifest is not None
    deep = deep and fits and not snapshots.relations(snapshot, manifest, one.reads)
    return snapshots.contents(snapshot, manifest, [posixpath.basename(key) for key in keys], heard, deep=deep)


def _began(store: Store, inventory: Inventory, runs: Iterable[_Run]) -> list[Finding]:
    """Models in the store that are others by now than those that runs began from."""
    found, digests = [], dict[str, str]()
    models = {posixpath.dirname(item.key) for item in inventory.of("model")}
    for one in runs:
        start = ((one.facts or {}).get("identity") or {}).get("start") or {}
        said, ref = ((one.facts or {}).get("inputs") or {}).get("start"), start.get("ref")
        if start.get("kind") != "weights" or ref not in models:
            continue
        digests[ref] = digests.get(ref) or others.digest_of_model(store, ref)
        if digests[ref] != said:
            what = f"has digest {digests[ref][:12]}, and {one.run[0]} seed {one.run[1]} began from {str(said)[:12]}"
            found.append(damaged(ref, what))
    return found
