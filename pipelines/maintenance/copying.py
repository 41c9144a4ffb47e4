"""Copies a run to another store, object by object, and verifies digests at the source and at the target.

Order: run.json, each snapshot's files and then its manifest (a base before the snapshots that need it), moments, resume
state of an incomplete run, rollouts, parts, tables, records, and end.json last. So an interrupted copy is an incomplete
run, and the same call continues it.

An object that the target has already is left if its bytes are equal, and replaced if it is damaged, which repairs a run
from a copy. An intact object with other bytes (a table measured with other settings, rows that another release of Arrow
wrote) is left and reported.
"""

import hashlib
import posixpath
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from opd_ops.recipe import differences
from pipelines.lake.lake import partition_key
from pipelines.maintenance import object_checks, snapshot_checks
from pipelines.maintenance.audit import list_objects
from pipelines.maintenance.finding import Finding
from pipelines.maintenance.inventory import Inventory, Item, classify
from pipelines.maintenance.run_checks import FACTS, IMPORT, import_key, recorded_tables
from pipelines.maintenance.snapshot_checks import Read
from pipelines.store import checksum
from pipelines.store.generations import newest
from pipelines.store.json_object import parse_json
from pipelines.store.names import repr_short, require_name, stays_inside
from pipelines.store.objects import Store
from pipelines.store.snapshot import digest
from pipelines.store.trajectory import Trajectory

DERIVED = ("rollouts", "part", "table", "record")  # not copied with `weights_only`
ORDER = ("run", "weights", "manifest", "moments", "resume", *DERIVED, "end")

Progress = Callable[[int, int], None]  # bytes done, bytes in total


@dataclass
class Moved:
    """Keys by the result of a copy.

    there: equal at the target already. kept: intact at the target, but different from the source. left: not copied,
    since they are no part of the run. nbytes: size of the copied objects.
    """

    copied: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    nbytes: int = 0


def copy_run(
    source: Store,
    target: Store,
    recipe: str,
    seed: int,
    *,
    weights_only: bool = False,
    progress: Progress = lambda done, of: None,
) -> Moved:
    """Copy one run, or only its weights, to a store that has no run or the same run of that name.

    Errors: ValueError in one line, before anything is written, for names that leave a store, for a run that is absent
    or damaged at the source, and for another run at the target, with the fields that differ.
    """
    require_name(recipe, "recipe")
    if source.uri == target.uri:
        raise ValueError(f"{source.uri} is both source and target; name another store")
    inventory = list_objects(source, [(recipe, seed)])
    for key in inventory.objects:
        if not stays_inside(key):
            raise ValueError(
                f"{source.uri} holds an object of the name {repr_short(key)}, which would leave a store; delete it"
            )
    source_run, target_run = Trajectory(source, recipe, seed), Trajectory(target, recipe, seed)
    _require_head(source_run, target_run, inventory)
    manifests = {item.step or 0: item for item in inventory.items_of_kind("manifest")}
    reads = {step: snapshot_checks.read_manifest(source_run.snapshot(step), step) for step in manifests}
    _require_whole(source_run, reads)
    _require_same_weights(source_run, target_run, reads)
    target.require_writable()
    moved = Moved()
    work = _list_objects(source_run, inventory, reads, moved, weights_only=weights_only)
    total, done = sum(inventory.objects[item.key].size for item in work), 0
    for item in work:
        _copy_object(source, target, item, _expected_sha256(source_run, item, reads), moved)
        done += inventory.objects[item.key].size
        progress(done, total)
    return moved


def _require_head(source_run: Trajectory, target_run: Trajectory, inventory: Inventory) -> None:
    """Errors: ValueError if the record with the run's identity is absent, damaged, or differs at the target."""
    run, key = f"{source_run.prefix}/run.json", import_key(inventory.items)
    key = run if run in inventory.objects else key
    if key is None:
        raise ValueError(
            f"{source_run.store.uri}/{source_run.prefix} holds no run.json, so nothing says what it is; see opd verify"
        )
    identity = _identity(checksum.remove_checksum(source_run.store.read(key), f"{source_run.store.uri}/{key}"), key)
    place = _place_of(target_run.store, classify(key))
    if not target_run.store.exists(place):
        return
    try:
        stored = _identity(checksum.remove_checksum(target_run.store.read(place), place), key)
    except ValueError:
        return  # damaged at the target: it is replaced
    if changed := differences(stored, identity):
        raise ValueError(
            f"{target_run.store.uri}/{target_run.prefix} holds another run of that name ({'; '.join(changed)}); "
            f"use another store, or move that run aside: "
            f"opd rm {target_run.recipe}/{target_run.seed} --out {target_run.store.uri}"
        )


def _identity(facts: dict[str, Any], key: str) -> dict[str, Any]:
    """The fields that must be equal for two runs to be the same; imports may grow, so only their base counts."""
    parts = ("identity", "inputs") if key.endswith("/run.json") else ("layout", "base")
    return {part: facts.get(part) for part in parts}


def _place_of(target: Store, item: Item) -> str:
    """The key of an object at the target: the same key, or the newest import record there for an import record."""
    if not (item.kind == "record" and item.name.startswith(IMPORT)):
        return item.key
    folder = posixpath.dirname(item.key)
    name = newest(target.list(folder), IMPORT)
    return f"{folder}/{name}" if name else item.key


def _require_whole(source_run: Trajectory, reads: Mapping[int, Read]) -> None:
    for step, read in reads.items():
        findings: list[Finding] = list(read.findings)
        if read.manifest is not None:
            findings += snapshot_checks.check_relations(source_run.snapshot(step), read.manifest, reads)
        if findings:
            first = findings[0]
            raise ValueError(f"{source_run.store.uri}: {first.key} {first.what}; nothing was copied, see opd verify")


def _require_same_weights(source_run: Trajectory, target_run: Trajectory, reads: Mapping[int, Read]) -> None:
    """Errors: ValueError with the first step at which the target holds other weights."""
    for step in target_run.steps():
        ours, theirs = reads.get(step), snapshot_checks.read_manifest(target_run.snapshot(step), step).manifest
        if ours is None or ours.manifest is None or theirs is None:
            continue
        if digest(theirs) != digest(ours.manifest):
            raise ValueError(
                f"{target_run.store.uri}/{target_run.prefix} holds other weights of step {step} "
                f"({digest(theirs)[:12]}) than {source_run.store.uri} ({digest(ours.manifest)[:12]}); use another store"
            )


def _list_objects(
    source_run: Trajectory, inventory: Inventory, reads: Mapping[int, Read], moved: Moved, *, weights_only: bool
) -> list[Item]:
    """The objects to copy, in order. Objects that are not copied are added to `moved.left`."""
    complete, imported = f"{source_run.prefix}/end.json" in inventory.objects, import_key(inventory.items)
    resume = {item.step for item in inventory.items_of_kind("resume") if item.name == FACTS and not complete}
    work = []
    for item in inventory.items:
        read = reads.get(item.step or 0)
        named = read is not None and read.manifest is not None and item.name in read.manifest["files"]
        wanted = item.kind in ORDER and not (weights_only and item.kind in DERIVED)
        if item.kind == "weights":
            wanted = named
        elif item.kind == "resume":
            wanted = item.step in resume and not weights_only
        elif item.kind == "record" and item.name.startswith(IMPORT):
            wanted = item.key == imported and not weights_only
        if wanted:
            work.append(item)
        elif not (weights_only and item.kind in (*DERIVED, "resume")):
            moved.left.append(item.key)

    def place(item: Item) -> tuple:
        # Whole snapshots come before those that need them as a base; weights come before their manifest.
        snapshot = item.kind in ("weights", "manifest")
        read = reads.get(item.step or 0)
        needs_base = bool(snapshot and read and read.manifest and read.manifest.get("base"))
        last = item.name == FACTS or item.key == imported
        return (
            ORDER.index("weights") if snapshot else ORDER.index(item.kind),
            needs_base,
            item.step or 0,
            item.kind == "manifest" or last,
            item.key,
        )

    return sorted(work, key=place)


def _expected_sha256(source_run: Trajectory, item: Item, reads: Mapping[int, Read]) -> str | None:
    """The SHA-256 of a weights file from its manifest; None for other objects."""
    if item.kind != "weights":
        return None
    manifest = reads[item.step or 0].manifest
    assert manifest is not None
    return manifest["files"][item.name]["sha256"]


def _copy_object(source: Store, target: Store, item: Item, pinned: str | None, moved: Moved) -> None:
    """Copy one object. Errors: ValueError if it is damaged at the source, or arrives with other bytes."""
    key, place = item.key, _place_of(target, item)
    before = snapshot_checks.sha256(target, place)[1] if target.exists(place) else None
    if pinned and before == pinned:
        moved.there.append(key)
        return
    try:
        data = source.read(key)
    except FileNotFoundError:
        if item.kind != "resume":  # a run that is being trained replaces its resume state
            raise
        moved.left.append(key)
        return
    sha = hashlib.sha256(data).hexdigest()
    if (pinned and sha != pinned) or not _is_intact(source, item):
        raise ValueError(f"{source.uri}/{key} is damaged, and the copy ends before it; see opd verify")
    if before == sha:
        moved.there.append(key)
    elif before and (_committed_otherwise(target, item, pinned) if pinned else _is_intact(target, classify(place))):
        moved.kept.append(key)
    elif item.kind == "record" and _vouches_for_others(item, data, moved):
        moved.left.append(key)
    else:
        if before:
            target.write(place, data)
        else:
            with suppress(FileExistsError):  # a racing copy of the same run
                target.create(place, data)
        if snapshot_checks.sha256(target, place)[1] != sha:
            raise ValueError(f"{target.uri}/{place} did not arrive as it was sent; the same command goes on")
        moved.copied.append(key)
        moved.nbytes += len(data)


def _is_intact(store: Store, item: Item) -> bool:
    """Whether an object passes its checks: checksum, digest or format, by its kind."""
    if item.kind == "manifest":
        snapshot = Trajectory(store, *(item.run or ("", 0))).snapshot(item.step or 0)
        return not snapshot_checks.read_manifest(snapshot, item.step or 0).findings
    if item.kind in object_checks.KINDS:
        return not object_checks.check_object(store, item)
    if item.kind in ("run", "end", "record"):
        try:
            checksum.remove_checksum(store.read(item.key), item.key)
        except ValueError:
            return False
    return True


def _committed_otherwise(target: Store, item: Item, pinned: str) -> bool:
    """Whether an intact manifest at the target has another SHA-256 for this file: the weights are encoded otherwise."""
    folder = posixpath.dirname(item.key)
    manifest = classify(f"{folder}/manifest.json")
    if not target.exists(manifest.key) or not _is_intact(target, manifest):
        return False
    files = parse_json(target.read(manifest.key))["files"]
    return files.get(item.name, {}).get("sha256") != pinned


def _vouches_for_others(item: Item, data: bytes, moved: Moved) -> bool:
    """Whether a record covers tables that the target has in a version of its own."""
    recipe, seed = item.run or ("", 0)
    tables, _ = recorded_tables(item.name, parse_json(data))
    return any(partition_key(table, recipe=recipe, seed=seed) in moved.kept for table in tables)
