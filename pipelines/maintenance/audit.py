"""Verifies a store: every object is part of the layout, exists, and holds what was written.

Names, run.json, end.json, records and manifests are always checked. All other objects are read and hashed, or a random
sample of them. Findings refer to one listing of the store, so a run that is being trained may show incomplete objects.
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

Progress = Callable[[int, int], None]  # bytes read, bytes in total


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The result of `audit`.

    objects, nbytes: number and size of the listed objects. snapshots: committed ones; hashed: how many of these were
    read and hashed. read: bytes read.
    """

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
    """Verify the whole store, or some runs.

    sample: number (int) or fraction (float) of the snapshots and other objects to read and hash; None is all. seed: of
    the sample. deep: also decode the weights. Errors: ValueError for a run that does not exist.
    """
    moves = {(move.recipe, move.seed): move for move in set_aside.stopped_moves(store)}
    inventory = list_objects(store, None if runs is None else [run for run in runs if run not in moves])
    findings = [_unexplained(item) for item in inventory.items_of_kind("temporary", "foreign")]
    findings += [_stopped(move) for run, move in moves.items() if runs is None or run in runs]
    examined = {
        run: Examined(Trajectory(store, *run), items) for run, items in inventory.runs().items() if run not in moves
    }
    for run in examined.values():
        findings += check_agreement(store, run, inventory)
    for run in examined.values():
        findings += check_start(run, examined)
    targets = _targets(inventory, examined)
    chosen = draw_targets(sorted(targets), sample, seed)
    total, done = sum(inventory.nbytes(targets[target]) for target in chosen), 0

    def heard(count: int) -> None:
        nonlocal done
        done += count
        progress(min(done, total), total)

    hashed = 0
    for target in chosen:
        keys = targets[target]
        try:
            if target.endswith("/manifest.json"):
                hashed += 1
                findings += _weights(store, target, keys, examined, heard, deep=deep)
            else:
                findings += object_checks.check_object(store, classify(target), heard)
        except FileNotFoundError:
            findings.append(missing(target, "was there when the store was listed"))
    if sample is None:
        findings += _changed_models(store, inventory, examined.values())
    committed = sum(len(run.reads) for run in examined.values())
    return Audit(
        findings=tuple(sorted(set(findings))),
        objects=len(inventory.objects),
        nbytes=inventory.nbytes(inventory.objects),
        snapshots=committed,
        hashed=hashed,
        read=done,
    )


def list_objects(store: Store, runs: Collection[Run] | None = None) -> Inventory:
    """The objects of a store, or of some runs with their tables. Errors: ValueError for a run that does not exist."""
    if runs is None:
        return Inventory(store.list_objects(""))
    objects: dict[str, Listed] = {}
    for recipe, seed in runs:
        listed = store.list_objects(f"{Trajectory(store, recipe, seed).prefix}/")
        if not listed:
            raise ValueError(f"{store.uri} holds no run {recipe} seed {seed}; {describe_runs(store, recipe)}")
        objects |= listed
        for table, declared in TABLES.items():
            key = partition_key(table, recipe=recipe, seed=seed)
            if "recipe" in declared.by and store.exists(key):
                objects |= store.list_objects(posixpath.dirname(key))
    return Inventory(objects)


def describe_runs(store: Store, recipe: str) -> str:
    """The seeds of a recipe, or the recipes of the store, in words for a message."""
    seeds = [name.removeprefix("seed-") for name in store.list(f"runs/{recipe}")]
    return f"it has seed {', '.join(seeds)}" if seeds else f"it has {', '.join(store.list('runs')) or 'none'}"


def draw_targets(targets: list[str], sample: int | float | None, seed: int) -> list[str]:
    """The sampled targets, in order; all if sample is None."""
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
    """The objects that can be hashed: keys to read by target. The target of a snapshot's files is its manifest."""
    targets = {item.key: [item.key] for item in inventory.items_of_kind(*object_checks.KINDS)}
    for run in examined.values():
        files = {}
        for item in run.items:
            if item.kind == "weights":
                files.setdefault(item.step, []).append(item.key)
        for item in run.items:
            read = run.reads.get(item.step or 0)
            if item.kind == "manifest" and read and read.manifest:
                targets[item.key] = files.get(item.step, [])
    return targets


def _weights(
    store: Store,
    key: str,
    keys: list[str],
    examined: Mapping[Run, Examined],
    heard: Callable[[int], None],
    *,
    deep: bool,
) -> list[Finding]:
    """Findings about the files of one committed snapshot. key: of its manifest; keys: of its weights files."""
    folder = posixpath.dirname(key)
    recipe, seed, step = folder.split("/")[1], int(folder.split("/")[2][5:]), int(folder[-8:])
    reads, snapshot = examined[recipe, seed].reads, Snapshot(store, folder)
    manifest = reads[step].manifest
    assert manifest is not None
    base = reads.get((manifest.get("base") or {}).get("step", step))
    readable = base is not None and base.manifest is not None
    deep = deep and readable and not snapshot_checks.check_relations(snapshot, manifest, reads)
    return snapshot_checks.check_contents(
        snapshot, manifest, [posixpath.basename(key) for key in keys], heard, deep=deep
    )


def _changed_models(store: Store, inventory: Inventory, runs: Iterable[Examined]) -> list[Finding]:
    """Findings about models in the store that differ from those that runs started from."""
    findings, digests = [], dict[str, str]()
    models = {posixpath.dirname(item.key) for item in inventory.items_of_kind("model")}
    for run in runs:
        start, recorded = recorded_start(run)
        ref = start.get("ref")
        if start.get("kind") != "weights" or not isinstance(ref, str) or ref not in models:
            continue
        digests[ref] = digests.get(ref) or object_checks.digest_of_model(store, ref)
        if digests[ref] != recorded:
            what = f"has digest {digests[ref][:12]}, and {run.run[0]} seed {run.run[1]} began from {str(recorded)[:12]}"
            findings.append(damaged(ref, what))
    return findings
