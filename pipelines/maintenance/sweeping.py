"""Deletes objects of a store that are not needed any more.

    temporary   left by a killed write, older than the age
    score       teacher scores, which earlier versions cached and nothing reads, older than the age
    orphan      weights without a manifest, and resume states without facts, of a run without writes for the age; a live
                run writes its manifest seconds after its weights
    resume      by policy, older than the age
                  finished  states of complete runs, and superseded states
                  all       also the newest state of a run without writes for the age; that run then starts over
                  keep      none

Never deleted: files of a committed snapshot, moments, rollouts, parts, records, tables, models, base factors, reports,
foreign objects, and objects of a run whose move aside (`opd rm`) was interrupted.

The age is measured by the store's clock (`read_store_clock`), so a client with a wrong clock deletes nothing too early.
An object with a time in the future has no age. If the store's clock jumps ahead, everything looks old at once. So old
objects are watched for WATCH seconds of a monotonic clock (`keep_idle`) and left if anything was written to their run
meanwhile. A writer whose weights were deleted before it wrote the manifest writes them again (`Trajectory.commit`).
"""

import posixpath
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.maintenance.audit import list_objects
from pipelines.maintenance.inventory import Inventory, Item
from pipelines.maintenance.run_checks import FACTS, folders_of
from pipelines.runs import set_aside
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

UNUSED = {"temporary": "left by a write that was killed", "score": "teacher scores, which nothing reads any more"}
POLICIES = ("finished", "all", "keep")
DAY = 24 * 3600.0
WATCH = 5.0  # seconds between two listings; a live run writes its manifest sooner after its weights


@dataclass(frozen=True, kw_only=True)
class Doomed:
    """Objects of one folder that are deleted together, in this order. why: in words.

    age: seconds since the last write. touched: time of that write, by the store's clock. guard: a key; if that object
    exists by then, nothing is deleted. modified: modification times of the keys.
    """

    keys: tuple[str, ...]
    why: str
    nbytes: int
    age: float
    touched: float
    guard: str | None = None
    modified: tuple[float, ...] = ()


def list_deletable(
    store: Store, *, age: float = DAY, resume: str = "finished", now: float | None = None
) -> list[Doomed]:
    """The objects that a sweep would delete now, by name. age: seconds. Errors: ValueError for a bad policy or age."""
    if resume not in POLICIES:
        raise ValueError(f"resume policy {resume!r} is unknown; use one of {', '.join(POLICIES)}")
    if not 0 <= age < float("inf"):
        raise ValueError(f"age {age:g} is no number of seconds from 0 up")
    now, inventory = read_store_clock(store) if now is None else now, list_objects(store)
    doomed = [
        _list_deletable(inventory, [item], reason, now, inventory.objects[item.key].modified)
        for kind, reason in UNUSED.items()
        for item in inventory.items_of_kind(kind)
    ]
    moves = {(move.recipe, move.seed) for move in set_aside.stopped_moves(store)}
    for (recipe, seed), items in inventory.runs().items():
        if (recipe, seed) in moves:
            continue
        doomed += _of_run(Trajectory(store, recipe, seed), items, inventory, resume, now)
    return sorted((group for group in doomed if group.age >= age), key=lambda group: group.keys)


def read_store_clock(store: Store) -> float:
    """Seconds since 1970 by the store's clock: the time of a probe object, or the local time if none can be written."""
    key = f".probe-{uuid.uuid4().hex}"
    try:
        store.write(key, b"")
        now = store.stat(key).modified
        store.remove(key)
    except OSError:
        return time.time()
    return now


def keep_idle(store: Store, doomed: list[Doomed], *, resume: str = "finished") -> list[Doomed]:
    """The objects of `doomed` whose runs had no write during the next WATCH seconds."""
    if not doomed:
        return []
    time.sleep(WATCH)
    again = list_deletable(store, age=0.0, resume=resume, now=float("inf"))
    unchanged = {(group.keys, group.modified, group.touched) for group in again}
    return [group for group in doomed if (group.keys, group.modified, group.touched) in unchanged]


def sweep(store: Store, doomed: list[Doomed]) -> Iterator[tuple[Doomed, bool]]:
    """Delete group after group; yields each with whether it was deleted. Objects that were written again are left.

    If a writer commits weights at the moment of their deletion, they are written back.
    """
    for group in doomed:
        listed = store.list_objects(posixpath.dirname(group.keys[0]))
        times = tuple(listed[key].modified if key in listed else None for key in group.keys)
        if times != group.modified or (group.guard and store.exists(group.guard)):
            yield group, False
            continue
        contents = {key: store.read(key) for key in group.keys} if group.guard else {}
        for key in group.keys:
            store.remove(key)
        committed = bool(group.guard and store.exists(group.guard))
        if committed:
            for key, data in contents.items():
                store.write(key, data)
        yield group, not committed


def _of_run(run: Trajectory, items: list[Item], inventory: Inventory, policy: str, now: float) -> Iterator[Doomed]:
    # Tables are no sign that a run is being trained: they are written at its end and when it is measured.
    own = [item for item in items if item.kind != "table"]
    touched = max((inventory.objects[item.key].modified for item in own), default=0.0)
    committed = {item.step for item in own if item.kind == "manifest"}
    alone: dict[int, list[Item]] = {}
    for item in own:
        if item.kind == "weights" and item.step is not None and item.step not in committed:
            alone.setdefault(item.step, []).append(item)
    for step, weights in alone.items():
        guard = run.snapshot(step).key
        yield _list_deletable(inventory, weights, "weights without a manifest", now, touched, guard)
    states = folders_of(item for item in own if item.kind == "resume")
    valid = [step for step, names in states.items() if FACTS in names]
    for step, names in states.items():
        # facts.json is deleted first: if the sweep is interrupted, the rest is an orphan.
        state = [names[name] for name in sorted(names)]
        written = max(inventory.objects[item.key].modified for item in state)
        if FACTS not in names:
            guard = f"{posixpath.dirname(state[0].key)}/{FACTS}"
            yield _list_deletable(inventory, state, "resume state without facts", now, touched, guard)
        elif policy != "keep" and _complete(run):
            yield _list_deletable(inventory, state, "resume state of a complete run", now, written)
        elif policy != "keep" and step < max(valid):
            yield _list_deletable(inventory, state, f"resume state that step {max(valid)} superseded", now, written)
        elif policy == "all":
            yield _list_deletable(inventory, state, "resume state of a run that is not complete", now, touched)


def _complete(run: Trajectory) -> bool:
    try:
        return run.end() is not None
    except ValueError:  # end.json is damaged
        return False


def _list_deletable(
    inventory: Inventory, items: list[Item], why: str, now: float, since: float, guard: str | None = None
) -> Doomed:
    keys = tuple(item.key for item in items)
    modified = tuple(inventory.objects[key].modified for key in keys)
    return Doomed(
        keys=keys,
        why=why,
        nbytes=inventory.nbytes(keys),
        age=now - since,
        touched=since,
        guard=guard,
        modified=modified,
    )
