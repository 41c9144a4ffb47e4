"""A run copied to another store, object by object, with digests checked where it leaves and where it arrives.

Order: run.json, each snapshot's files and then its manifest (a base before what is kept beside it), moments, resume
state of a run that is not complete, rollouts, parts, tables, records, and end.json last: a copy that was stopped is a
run that is not complete, and the same call goes on.

What is there already: equal bytes stay; damaged ones are replaced, which repairs a run from a copy; others that are
whole (a table measured with other settings, rows that another release of Arrow wrote) stay, too, and are named.
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

DERIVED = ("rollouts", "part", "table", "record")  # left behind where only weights are wanted
ORDER = ("run", "weights", "manifest", "moments", "resume", *DERIVED, "end")

Progress = Callable[[int, int], None]  # bytes done and in all


@dataclass
class Moved:
    """What a copy did. there: equal already. kept: whole and other than the source's. left: no part of the run."""

    copied: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    nbytes: int = 0  # copied


def copy_run(
    source: Store,
    target: Store,
    recipe: str,
    seed: int,
    *,
    weights_only: bool = False,
    progress: Progress = lambda done, of: None,
) -> Moved:
    """Copy one run, all of it or its weights alone, to where none or the same run is.

    Errors: ValueError in one line, before anything is written, for names that would leave a store, a run that is absent
    or damaged at the source, and for another run at the target, with the fields in which it differs.
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
    here, there = Trajectory(source, recipe, seed), Trajectory(target, recipe, seed)
    _require_head(here, there, inventory)
    manifests = {item.step or 0: item for item in inventory.of("manifest")}
    reads = {step: snapshot_checks.read_manifest(here.snapshot(step), step) for step in manifests}
    _require_whole(here, reads)
    _require_same_weights(here, there, reads)
    target.require_writable()
    moved = Moved()
    work = _list_objects(here, inventory, reads, moved, weights_only=weights_only)
    of, done = sum(inventory.objects[item.key].size for item in work), 0
    for item in work:
        _copy_object(source, target, item, _expected_sha256(here, item, reads), moved)
        done += inventory.objects[item.key].size
        progress(done, of)
    return moved


def _require_head(here: Trajectory, there: Trajectory, inventory: Inventory) -> None:
    """Errors: ValueError where what says which run it is is absent, damaged, or says another one at the target."""
    run, key = f"{here.prefix}/run.json", import_key(inventory.items)
    key = run if run in inventory.objects else key
    if key is None:
        raise ValueError(
            f"{here.store.uri}/{here.prefix} holds no run.json, so nothing says what it is; see opd verify"
        )
    said = _identity(checksum.remove_checksum(here.store.read(key), f"{here.store.uri}/{key}"), key)
    place = _place_of(there.store, classify(key))
    if not there.store.exists(place):
        return
    try:
        stored = _identity(checksum.remove_checksum(there.store.read(place), place), key)
    except ValueError:
        return  # damaged there, and replaced
    if changed := differences(stored, said):
        raise ValueError(
            f"{there.store.uri}/{there.prefix} holds another run of that name ({'; '.join(changed)}); "
            f"use another store, or move that run aside: opd rm {there.recipe}/{there.seed} --out {there.store.uri}"
        )


def _identity(facts: dict[str, Any], key: str) -> dict[str, Any]:
    """What two runs of one name must agree about; of imports, which grow, the base."""
    parts = ("identity", "inputs") if key.endswith("/run.json") else ("layout", "base")
    return {part: facts.get(part) for part in parts}


def _place_of(target: Store, item: Item) -> str:
    """The key of an object at the target: its own, but that of the record which counts there for an import's."""
    if not (item.kind == "record" and item.name.startswith(IMPORT)):
        return item.key
    folder = posixpath.dirname(item.key)
    name = newest(target.list(folder), IMPORT)
    return f"{folder}/{name}" if name else item.key


def _require_whole(here: Trajectory, reads: Mapping[int, Read]) -> None:
    for step, read in reads.items():
        found: list[Finding] = list(read.findings)
        if read.manifest is not None:
            found += snapshot_checks.check_relations(here.snapshot(step), read.manifest, reads)
        if found:
            raise ValueError(f"{here.store.uri}: {found[0].key} {found[0].what}; nothing was copied, see opd verify")


def _require_same_weights(here: Trajectory, there: Trajectory, reads: Mapping[int, Read]) -> None:
    """Errors: ValueError naming the step at which the target holds other weights."""
    for step in there.steps():
        ours, theirs = reads.get(step), snapshot_checks.read_manifest(there.snapshot(step), step).manifest
        if ours is None or ours.manifest is None or theirs is None:
            continue
        if digest(theirs) != digest(ours.manifest):
            raise ValueError(
                f"{there.store.uri}/{there.prefix} holds other weights of step {step} ({digest(theirs)[:12]}) than "
                f"{here.store.uri} ({digest(ours.manifest)[:12]}); use another store"
            )


def _list_objects(
    here: Trajectory, inventory: Inventory, reads: Mapping[int, Read], moved: Moved, *, weights_only: bool
) -> list[Item]:
    """What is copied, in order; what is not is added to `left`."""
    complete, imported = f"{here.prefix}/end.json" in inventory.objects, import_key(inventory.items)
    resume = {item.step for item in inventory.of("resume") if item.name == FACTS and not complete}
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
        # A base is whole, and lies before what is kept beside it; weights lie before their manifest.
        snapshot = item.kind in ("weights", "manifest")
        read = reads.get(item.step or 0)
        beside = bool(snapshot and read and read.manifest and read.manifest.get("base"))
        last = item.name == FACTS or item.key == imported
        return (
            ORDER.index("weights") if snapshot else ORDER.index(item.kind),
            beside,
            item.step or 0,
            item.kind == "manifest" or last,
            item.key,
        )

    return sorted(work, key=place)


def _expected_sha256(here: Trajectory, item: Item, reads: Mapping[int, Read]) -> str | None:
    """The SHA-256 that an object must have, where something else says it."""
    if item.kind != "weights":
        return None
    manifest = reads[item.step or 0].manifest
    assert manifest is not None
    return manifest["files"][item.name]["sha256"]


def _copy_object(source: Store, target: Store, item: Item, pinned: str | None, moved: Moved) -> None:
    """Bring one object over. Errors: ValueError where it leaves or arrives as something else."""
    key, place = item.key, _place_of(target, item)
    before = snapshot_checks.sha256(target, place)[1] if target.exists(place) else None
    if pinned and before == pinned:
        moved.there.append(key)
        return
    try:
        data = source.read(key)
    except FileNotFoundError:
        if item.kind != "resume":  # which a run that is being trained replaces
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
    """Whether an object is what was written there, by what pins it."""
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
    """Whether a manifest at the target says that the same weights are kept in another way there."""
    folder = posixpath.dirname(item.key)
    manifest = classify(f"{folder}/manifest.json")
    if not target.exists(manifest.key) or not _is_intact(target, manifest):
        return False
    files = parse_json(target.read(manifest.key))["files"]
    return files.get(item.name, {}).get("sha256") != pinned


def _vouches_for_others(item: Item, data: bytes, moved: Moved) -> bool:
    """Whether a record would speak of tables that the target has of its own."""
    recipe, seed = item.run or ("", 0)
    tables, _ = recorded_tables(item.name, parse_json(data))
    return any(partition_key(table, recipe=recipe, seed=seed) in moved.kept for table in tables)
