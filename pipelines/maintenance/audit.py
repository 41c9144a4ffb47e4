"""Verification of a store: every object is explained by the layout, is there, and is what was written.

Names, run.json, end.json, records and manifests are always read. Everything else is read again and hashed: all of it,
or a sample drawn with a seed. What is found is said of the store as one listing showed it, so a run that is being
trained may show what it is just writing.
"""

import math
import posixpath
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from pipelines.lake.lake import partition_key
from pipelines.lake.schemas import TABLES
from pipelines.maintenance import object_checks, snapshot_checks
from pipelines.maintenance.finding import Finding, damaged, foreign, missing, orphan
from pipelines.maintenance.inventory import Inventory, Item, Run, classify
from pipelines.maintenance.run_checks import Examined, check_agreement, check_start, recorded_start
from pipelines.runs import set_aside
from pipelines.store.objects import Listed, Store
from pipelines.store.snapshot import Snapshot
from pipelines.store.trajectory import Trajectory

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
    moves = {(move.recipe, move.seed): move for move in set_aside.stopped_moves(store)}
    inventory = list_objects(store, None if runs is None else [run for run in runs if run not in moves])
    found = [_unexplained(item) for item in inventory.of("temporary", "foreign")]
    found += [_stopped(move) for run, move in moves.items() if runs is None or run in runs]
    examined = {
        run: Examined(Trajectory(store, *run), items) for run, items in inventory.runs().items() if run not in moves
    }
    for one in examined.values():
        found += check_agreement(store, one, inventory)
    for one in examined.values():
        found += check_start(one, examined)
    targets = _targets(inventory, examined)
    chosen = draw_targets(sorted(targets), sample, seed)
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
                found += object_checks.check_object(store, classify(target), heard)
        except FileNotFoundError:
            found.append(missing(target, "was there when the store was listed"))
    if sample is None:
        found += _changed_models(store, inventory, examined.values())
    committed = sum(len(one.reads) for one in examined.values())
    return Audit(
        findings=tuple(sorted(set(found))),
        objects=len(inventory.objects),
        nbytes=inventory.nbytes(inventory.objects),
        snapshots=committed,
        hashed=hashed,
        read=done,
    )


def list_objects(store: Store, runs: Collection[Run] | None = None) -> Inventory:
    """What a store holds, or what it holds of some runs. Errors: ValueError for a run that is not there."""
    if runs is None:
        return Inventory(store.list_objects(""))
    objects: dict[str, Listed] = {}
    for recipe, seed in runs:
        found = store.list_objects(f"{Trajectory(store, recipe, seed).prefix}/")
        if not found:
            raise ValueError(f"{store.uri} holds no run {recipe} seed {seed}; {describe_runs(store, recipe)}")
        objects |= found
        for table, declared in TABLES.items():
            key = partition_key(table, recipe=recipe, seed=seed)
            if "recipe" in declared.by and store.exists(key):
                objects |= store.list_objects(posixpath.dirname(key))
    return Inventory(objects)


def describe_runs(store: Store, recipe: str) -> str:
    """Which runs there are instead, in words."""
    seeds = [name.removeprefix("seed-") for name in store.list(f"runs/{recipe}")]
    return f"it has seed {', '.join(seeds)}" if seeds else f"it has {', '.join(store.list('runs')) or 'none'}"


def draw_targets(targets: list[str], sample: int | float | None, seed: int) -> list[str]:
    """The targets to look at, in order."""
    if sample is None:
        return targets
    count = math.ceil(sample * len(targets)) if isinstance(sample, float) else sample
    return sorted(random.Random(seed).sample(targets, min(count, len(targets))))


def _unexplained(item: Item) -> Finding:
    if item.kind == "temporary":
        return orphan(item.key, "is what a write that was killed left behind")
    return foreign(item.key, "is no object of this project")


def _stopped(move: set_aside.Aside) -> Finding:
    remedy = f"`opd rm {move.name}` finishes it, `opd rm {move.name} --undo` takes it back"
    return Finding("orphan", move.prefix, f"holds a part of {move.name}: its move was stopped", remedy)


def _targets(inventory: Inventory, examined: Mapping[Run, Examined]) -> dict[str, list[str]]:
    """What can be read again and hashed: keys by the object that a sample draws, a manifest for a snapshot's files."""
    found = {item.key: [item.key] for item in inventory.of(*object_checks.KINDS)}
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
    store: Store,
    key: str,
    keys: list[str],
    examined: Mapping[Run, Examined],
    heard: Callable[[int], None],
    *,
    deep: bool,
) -> list[Finding]:
    """Of one committed snapshot, by the key of its manifest."""
    folder = posixpath.dirname(key)
    recipe, seed, step = folder.split("/")[1], int(folder.split("/")[2][5:]), int(folder[-8:])
    one, snapshot = examined[recipe, seed], Snapshot(store, folder)
    manifest = one.reads[step].manifest
    assert manifest is not None
    beside = one.reads.get((manifest.get("base") or {}).get("step", step))
    fits = beside is not None and beside.manifest is not None
    deep = deep and fits and not snapshot_checks.check_relations(snapshot, manifest, one.reads)
    return snapshot_checks.check_contents(
        snapshot, manifest, [posixpath.basename(key) for key in keys], heard, deep=deep
    )


def _changed_models(store: Store, inventory: Inventory, runs: Iterable[Examined]) -> list[Finding]:
    """Models in the store that are others by now than those that runs began from."""
    found, digests = [], dict[str, str]()
    models = {posixpath.dirname(item.key) for item in inventory.of("model")}
    for one in runs:
        start, said = recorded_start(one)
        ref = start.get("ref")
        if start.get("kind") != "weights" or not isinstance(ref, str) or ref not in models:
            continue
        digests[ref] = digests.get(ref) or object_checks.digest_of_model(store, ref)
        if digests[ref] != said:
            what = f"has digest {digests[ref][:12]}, and {one.run[0]} seed {one.run[1]} began from {str(said)[:12]}"
            found.append(damaged(ref, what))
    return found
