"""What nobody will ask a store for any more, and its deletion.

    temporary   what a killed write left, older than the age
    score       teacher scores, which earlier versions cached and nothing reads, older than the age
    orphan      weights without a manifest, and a resume state without facts, of a run to which nothing was written for
                the age: a live run writes its manifest seconds after its weights
    resume      by policy, older than the age
                  finished  of complete runs, and those that a later one superseded
                  all       also the last one of a run to which nothing was written for the age: it begins again
                  keep      none

Never deleted: the files of a committed snapshot, moments, rollouts, parts, records, tables, models, caches, reports,
what is foreign, and anything of a run of which a part was moved aside (`opd rm`) when the move was stopped.

The age is by the clock of whoever stamps the store's objects (`clock`), so a client whose clock is wrong sweeps nothing
early; an object of the future has no age. A clock that jumps ahead makes everything old at once. So what looks old is
watched for some seconds of a clock that cannot jump (`still`), and stays where anything was written to its run
meanwhile; and a writer whose weights went before their manifest came puts them back (`Trajectory.commit`).
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
WATCH = 5.0  # seconds between two looks: a live run writes its manifest in fewer after its weights


@dataclass(frozen=True, kw_only=True)
class Doomed:
    """Objects of one folder that go together, in this order. why: in words. age: seconds since the last was written.

    guard: they stay where this object is there by then. touched: when that was, by the store's clock.
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
    """What a sweep made now would delete, by name. age: seconds. Errors: ValueError for another policy or age."""
    if resume not in POLICIES:
        raise ValueError(f"resume policy {resume!r} is unknown; use one of {', '.join(POLICIES)}")
    if not 0 <= age < float("inf"):
        raise ValueError(f"age {age:g} is no number of seconds from 0 up")
    now, inventory = read_store_clock(store) if now is None else now, list_objects(store)
    found = [
        _list_deletable(inventory, [item], reason, now, inventory.objects[item.key].modified)
        for kind, reason in UNUSED.items()
        for item in inventory.of(kind)
    ]
    moves = {(move.recipe, move.seed) for move in set_aside.stopped_moves(store)}
    for (recipe, seed), items in inventory.runs().items():
        if (recipe, seed) in moves:
            continue
        found += _of_run(Trajectory(store, recipe, seed), items, inventory, resume, now)
    return sorted((one for one in found if one.age >= age), key=lambda one: one.keys)


def read_store_clock(store: Store) -> float:
    """Seconds since 1970 by who stamps the store's objects: of an object written now; or by ours where none can be."""
    key = f".probe-{uuid.uuid4().hex}"
    try:
        store.write(key, b"")
        now = store.stat(key).modified
        store.remove(key)
    except OSError:
        return time.time()
    return now


def keep_idle(store: Store, found: list[Doomed], *, resume: str = "finished") -> list[Doomed]:
    """Those of `found` to whose runs nothing was written while they were watched for WATCH seconds."""
    if not found:
        return []
    time.sleep(WATCH)
    again = {
        (one.keys, one.modified, one.touched) for one in list_deletable(store, age=0.0, resume=resume, now=float("inf"))
    }
    return [one for one in found if (one.keys, one.modified, one.touched) in again]


def sweep(store: Store, found: list[Doomed]) -> Iterator[tuple[Doomed, bool]]:
    """Delete, one after the other; each with whether it went. What was written again since it was found stays.

    Should a writer commit weights in the instant in which they go, they are put back.
    """
    for one in found:
        here = store.list_objects(posixpath.dirname(one.keys[0]))
        same = all(key in here and here[key].modified == at for key, at in zip(one.keys, one.modified, strict=True))
        if not same or (one.guard and store.exists(one.guard)):
            yield one, False
            continue
        held = {key: store.read(key) for key in one.keys} if one.guard else {}
        for key in one.keys:
            store.remove(key)
        if one.guard and store.exists(one.guard):
            for key, data in held.items():
                store.write(key, data)
            yield one, False
            continue
        yield one, True


def _of_run(run: Trajectory, items: list[Item], inventory: Inventory, policy: str, now: float) -> Iterator[Doomed]:
    # Tables are written at its end, and by what measures it: they are no sign that it is being trained.
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
        # Without its facts a state is none: should the sweep be stopped, what is left is an orphan.
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
    except ValueError:  # damaged: who knows
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
