"""Measure checkpoints trained elsewhere: they become the recipe external.<name>, seed 0.

Several calls under one name may run at once, on any machines. The record is written by compare-and-set
(`records.write`) and the tables after it; a call that finds a newer record before or after that plans again from it. So
the last writer of a table knows all snapshots recorded before.

Nothing is copied: tasks read byte ranges of the original files, so every worker must see them. More snapshots under the
same name and base join the recorded ones. They cost only themselves, locking (pairs, from saved subspaces) and, if the
final one is new, the nulls of few steps along its direction. Tables hold the roles of the latest call. A recorded
snapshot that is gone is needed only if its weights must be read.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from opd_ops.geometry import VERSION
from opd_ops.roles import PROJECTIONS
from pipelines.lake.lake import file_of, partition_key
from pipelines.lake.record_checks import SHA256
from pipelines.runs.clock import Clock, write_timing
from pipelines.runs.geometry import records
from pipelines.runs.geometry.measuring import Progress, book_cpu, delete_unused_parts, largest_first, measure_tasks
from pipelines.runs.geometry.parts import list_entries, missing_units
from pipelines.runs.geometry.tasks import FIXED, MatrixTask, Pair, Source
from pipelines.runs.geometry.worker import Found
from pipelines.runs.provenance import provenance
from pipelines.store.checkpoints import Checkpoint, open_checkpoint
from pipelines.store.matrices import matrices
from pipelines.store.matrix import MatrixRef
from pipelines.store.objects import Store, normalise
from pipelines.store.pairing import Pairing, pair
from pipelines.studies.study import Measurement

STUDY = "external"
ROLES = (*PROJECTIONS, "embed", "head", "norm", "bias", "other")
ATTEMPTS = 50  # at a record that others keep replacing
_NAME = re.compile(r"[a-z0-9._-]{1,100}")


@dataclass(frozen=True, kw_only=True)
class Import:
    """A checked import, ready to be measured."""

    store: Store
    recipe: str  # external.<name>
    steps: tuple[int, ...]  # all snapshots, recorded and given
    fresh: bool  # the tables are already of these snapshots, settings and engine: there is nothing to measure
    work: list[MatrixTask]  # empty where fresh
    record: dict[str, Any]  # import.json as it will be, but for the tables
    stored: records.Record | None  # what the record says now
    number: int  # of that record
    anew: "Callable[[], Import]"  # the same import, planned on what the record says by then
    tables: dict[str, dict[str, Any]]  # what each table asked for is made from
    notes: tuple[str, ...]  # what is left out, cut or taken as the same


def plan_import(
    store: Store,
    base: str,
    snapshots: Sequence[tuple[int, str]],
    measurement: Measurement,
    name: str | None = None,
    roles: Sequence[str] | None = None,
) -> Import:
    """Check everything about an import of `snapshots` (step, ref) of `base`, before any work; writes nothing.

    name: [a-z0-9._-], or None for the first 12 hex digits of the base's stamp. roles: of the matrices; all where None.
    Errors: ValueError in one line with the value and the remedy, for names, steps, roles, tables, and for checkpoints
    that cannot be read or do not fit each other or what is recorded under the name.
    """
    from opd_ops.geometry.settings import Settings

    if name is not None:
        require_name(name)
    Settings(**measurement.cuts, tables=measurement.tables)
    wanted = _roles(roles)
    _require_steps([step for step, _ in snapshots])
    start = open_checkpoint("base", base)
    recipe = f"{STUDY}.{name or start.stamp[:12]}"
    number, stored = records.read_newest(store, recipe)
    kept: dict[int, dict] = {int(step): found for step, found in stored["snapshots"].items()} if stored else {}
    given, gone = _open_checkpoints(snapshots, kept)
    pairings = {step: pair(start, checkpoint) for step, checkpoint in given.items()}
    if stored is not None:
        records.require_extends(stored, recipe, start, given)
    held = matrices(start)
    described = kept | {step: _describe_snapshot(held, given[step], pairings[step]) for step in given}
    steps = tuple(sorted(described))
    record = {
        "layout": records.LAYOUT,
        "base": {"ref": start.ref, "stamp": start.stamp},
        "snapshots": {str(step): described[step] for step in steps},
    }
    made_from = records.of_table(record, measurement, VERSION, wanted)
    tables = dict.fromkeys(measurement.tables, made_from)
    fresh = stored is not None and all(
        records.matches_rows(stored, store, recipe, table, made_from) for table in tables
    )
    work = []
    if not fresh:
        pairings |= {step: pair(start, found) for step in kept if (found := _reopen_snapshot(step, kept, given))}
        work = _tasks(store, recipe, start, described, pairings, measurement, wanted)
        _require_kept(work, described)
    notes = dict.fromkeys(gone + [note for step in steps for note in described[step]["notes"]])
    notes |= dict.fromkeys(measurement.left_out(steps))
    return Import(
        store=store,
        recipe=recipe,
        steps=steps,
        fresh=fresh,
        work=work,
        record=record | {"tables": stored["tables"] if stored else {}},
        stored=stored,
        number=number,
        anew=partial(plan_import, store, base, list(snapshots), measurement, name, roles),
        tables=tables,
        notes=tuple(notes),
    )


def measure_import(imported: Import, *, serial: bool = False, progress: Progress = lambda done, of: None) -> list[str]:
    """Measure, write the record and replace the requested tables; returns problems (non-finite weights by name).

    A fresh import measures nothing and returns the recorded problems. Errors: ValueError, before any work, for a store
    that cannot be written; after it, if another call has recorded something that this one does not extend.
    """
    store, recipe, clock = imported.store, imported.recipe, Clock()
    for _ in range(ATTEMPTS):
        if imported.fresh:
            return list(
                dict.fromkeys(p for table in imported.tables for p in imported.record["tables"][table]["problems"])
            )
        store.require_writable()
        earlier = clock.seconds.get("measure", [0.0, 0.0])[1]
        with clock.phase("measure"):
            measured = measure_tasks(imported.work, serial=serial, progress=progress)
        book_cpu(clock, measured)
        clock.seconds["measure"][1] += earlier
        if _write_import(imported, measured):
            write_timing(store, STUDY, recipe, 0, imported.steps[-1], clock)
            delete_unused_parts(store, measured.stale)
            return measured.problems
        imported = imported.anew()
    raise ValueError(
        f"the record of {recipe} was replaced {ATTEMPTS} times by others meanwhile; the same command goes on"
    )


def _write_import(imported: Import, measured: Found) -> bool:
    """Write the record, then the tables; False if another call's record came first.

    A call that is killed in between leaves tables that do not match the record; the next call measures them again.
    """
    store, recipe = imported.store, imported.recipe
    files = {table: file_of(table, measured.rows[table]) for table in imported.tables}
    made = {
        table: made_from | {"problems": measured.problems, SHA256: hashlib.sha256(files[table]).hexdigest()}
        for table, made_from in imported.tables.items()
    }
    record, number = imported.record | {"tables": imported.record["tables"] | made}, imported.number
    if imported.stored is None or any(imported.stored[part] != record[part] for part in record):
        try:
            number = records.write(store, recipe, record | {"provenance": provenance()}, number)
        except FileExistsError:
            return False
    for table, data in files.items():
        store.write(partition_key(table, recipe=recipe, seed=0), data)
    return records.record_generations(store, recipe).newest() == number


def require_name(name: str) -> None:
    """Errors: ValueError for an invalid import name."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"name {name!r} does not fit: use up to 100 of a-z, 0-9, dot, underscore and hyphen")


def _roles(roles: Sequence[str] | None) -> tuple[str, ...] | None:
    """The roles in the order of ROLES. Errors: ValueError for an unknown role or an empty list."""
    if roles is None:
        return None
    if unknown := [role for role in roles if role not in ROLES]:
        raise ValueError(f"unknown role {unknown[0]!r}; known: {', '.join(ROLES)}")
    if not roles:
        raise ValueError(f"no roles to measure; known: {', '.join(ROLES)}")
    return tuple(role for role in ROLES if role in roles)


def _require_steps(steps: list[int]) -> None:
    if not steps:
        raise ValueError("no snapshots to measure; give at least one --snapshot STEP=REF")
    for step in steps:
        if type(step) is not int or step not in range(1, 2**63):
            raise ValueError(f"step {step!r} is not a whole number from 1 up; step 0 is the base itself")
        if steps.count(step) > 1:
            raise ValueError(f"step {step} is given {steps.count(step)} times; give each step one checkpoint")


def _describe_snapshot(held: dict[str, MatrixRef], checkpoint: Checkpoint, pairing: Pairing) -> dict[str, Any]:
    """The record of a snapshot. held: the weights of the base."""
    absent = sorted(held.keys() - pairing.pairs.keys())
    return {"ref": checkpoint.ref, "stamp": checkpoint.stamp, "notes": list(pairing.notes), "absent": absent}


def _open_checkpoints(
    snapshots: Sequence[tuple[int, str]], kept: Mapping[int, records.Record]
) -> tuple[dict[int, Checkpoint], list[str]]:
    """The named checkpoints by step, and a note for each that is gone but recorded with the same address.

    Errors: ValueError for any other unreadable checkpoint.
    """
    given, notes = {}, []
    for step, ref in snapshots:
        try:
            given[step] = open_checkpoint(f"snapshot {step}", ref)
        except ValueError as error:
            recorded = kept[step]["ref"] if step in kept else ""
            if recorded not in (ref, normalise(ref)) or not _is_gone(recorded):
                raise
            notes.append(f"{error}; what was measured of it is used")
    return given, notes


def _is_gone(uri: str) -> bool:
    """Whether it is certain that nothing is at an address."""
    folder, _, name = uri.rpartition("/")
    try:
        return name not in Store(folder).list("")
    except OSError:
        return False


def _reopen_snapshot(step: int, kept: dict[int, dict], given: dict[int, Checkpoint]) -> Checkpoint | None:
    """A recorded snapshot that the call does not name; None if it is gone. Errors: ValueError if it has changed."""
    if step in given:
        return None
    try:
        found = open_checkpoint(f"recorded snapshot {step}", kept[step]["ref"])
    except ValueError:
        return None
    records.require_unchanged(step, kept[step], found)
    return found


def _tasks(
    store: Store,
    recipe: str,
    start: Checkpoint,
    described: dict[int, dict],
    pairings: dict[int, Pairing],
    measurement: Measurement,
    roles: tuple[str, ...] | None,
) -> list[MatrixTask]:
    """The tasks. Errors: ValueError if roles and tables leave none."""
    found, held = [], matrices(start)
    for name, ref in held.items():
        pairs = []
        for step in sorted(described):
            stamp = described[step]["stamp"]
            if step not in pairings:
                if name not in described[step]["absent"]:
                    pairs.append(Pair(step, Source(start.stamp, None), Source(stamp, None)))
            elif both := pairings[step].pairs.get(name):
                pairs.append(Pair(step, Source(start.stamp, both[0]), Source(stamp, both[1])))
        if pairs and (roles is None or ref.role in roles):
            keys = {"matrix": name, "layer": ref.layer, "role": ref.role}
            found.append(
                MatrixTask(
                    store=store,
                    prefix=records.prefix(recipe),
                    name=name,
                    role=ref.role,
                    shape=ref.shape,
                    dtype=ref.ref.dtype,
                    pairs=tuple(pairs),
                    columns={"study": STUDY, "recipe": recipe, "seed": 0} | keys,
                    measurement=measurement,
                )
            )
    if not any(task.tables for task in found):
        there = ", ".join(role for role in ROLES if any(ref.role == role for ref in held.values()))
        raise ValueError(
            f"nothing to measure of roles {', '.join(roles or ROLES)} in tables {', '.join(measurement.tables)}; "
            f"{start} has roles {there}, and only update_support has rows of other roles than projections"
        )
    return largest_first(task for task in found if task.tables)


def _require_kept(work: list[MatrixTask], described: dict[int, dict]) -> None:
    """Errors: ValueError for a snapshot that is gone and whose requested tables are not all saved."""
    for task in work:
        gone = [one.step for one in task.pairs if one.after.ref is None]
        entries = list_entries(task) if gone else []
        missing = missing_units(task, entries) if gone else {}
        lack_nulls = [pair for pair in task.pairs if "nulls" in missing.get(pair.step, ())]
        if not all(any(entry.serves(task, pair, FIXED) for entry in entries) for pair in lack_nulls):
            missing.setdefault(task.final.step, ("nulls",))  # which is read for that null of any step
        for step in gone:
            if step in missing:
                nulls = " or leave nulls out, which compare with the final step;"
                raise ValueError(
                    f"recorded snapshot {step} is gone from {described[step]['ref']} and {task.name} of it must be "
                    f"read;{nulls if missing[step] == ('nulls',) else ''} {records.remedy(step)}"
                )
