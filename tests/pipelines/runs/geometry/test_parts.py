"""Measuring that is stopped goes on: what is kept, when, and what is believed of it."""

import hashlib
import json
import math
import subprocess
import sys
import zlib
from contextlib import contextmanager
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from opd_ops.geometry.suite import Matrix
from opd_ops.geometry.update import Subspaces
from pipelines.runs.external.imports import measure_import, plan_import
from pipelines.runs.geometry import estimates, parts
from pipelines.runs.geometry.parts import Entry, Parts, list_entries, missing_units
from pipelines.runs.geometry.tasks import FIXED, SHUFFLED, table_units
from pipelines.store.objects import Store
from tests.pipelines.runs.conftest import CUTS, Folders, Q, everything, objects, run, same

PROJECTIONS, STEPS = 4, (1, 2)


@pytest.fixture
def given(folders) -> Folders:
    return folders["base"], [(1, folders["one"]), (2, folders["two"])]


@pytest.fixture
def task(given: Folders, store):
    """The task of q."""
    return next(task for task in plan_import(store, *given, CUTS, "x").work if task.name == Q)


def kept(store):
    return sorted(key for key in objects(store) if "/measured/" in key)


def entry(task, step=1, tables=("hill",), **changes):
    pair = next(pair for pair in task.pairs if pair.step == step)
    facts = {"step": step, "before": pair.before.identity, "after": pair.after.identity, "tables": tables}
    return Entry(**facts | {"rows": {}, "made_from": task.made_from} | changes)


@contextmanager
def killed(self):
    """`Parts.saved` of a process that ends without another word."""
    yield
    self.flush()


@pytest.mark.parametrize("stop", [1, 4, 9, 18])
@pytest.mark.parametrize(("flush", "saved"), [(0.0, Parts.flushing), (10.0, Parts.flushing), (10.0, killed)])
def test_what_was_kept_before_a_stop_is_not_measured_again(
    stop, flush, saved, given, tmp_path, store, monkeypatch, taken
):
    at_once = Store(f"file://{tmp_path}/at-once")
    run(at_once, *given)
    taken.clear()
    with monkeypatch.context() as patch:
        snapshot = Matrix.snapshot

        def stopping(self, step, weight):
            if len(taken) >= stop:
                raise KeyboardInterrupt
            return snapshot(self, step, weight)

        patch.setattr(parts, "FLUSH", flush)
        patch.setattr(Parts, "flushing", saved)
        patch.setattr(Matrix, "snapshot", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(store, *given)
    assert "lake" not in store.list("")
    run(store, *given)
    # Six matrices at two steps, and two nulls of four of them. Killed, the parts of one matrix are lost at most.
    lost = len(taken) - (6 * 2 + PROJECTIONS * 2 * 2)
    assert lost == 0 if saved is not killed else 0 <= lost <= 5
    assert same(everything(store), everything(at_once))


def test_the_part_of_a_small_matrix_is_one_object(given, store):
    run(store, *given)
    assert len(kept(store)) == 6


def test_parts_are_written_as_work_accumulates(given, store, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "FLUSH", 0.0)
    run(store, *given)
    assert len(kept(store)) == PROJECTIONS * 2 * 3 + 2 * 2  # also support of what is no projection
    monkeypatch.undo()
    other = Store(f"file://{tmp_path}/other")
    run(other, *given)
    assert same(everything(store), everything(other))


def test_an_entry_comes_back_as_it_was(task):
    wide = Subspaces(torch.eye(5, 2), torch.eye(3, 2), (2, 9), (0.25, math.inf), (None, "too wide"), "gram-f64")
    none = Subspaces(torch.zeros(5, 0), torch.zeros(3, 0), (2, 9), (math.inf,) * 2, ("zero", "zero"), "equality")
    rows = {"hill": [{"k": 4, "hill": 0.1 + 0.2, "reason": None}]}
    first = entry(task, rows=rows, problems=("step 1: 2 non-finite weights",), dtype="bf16")
    second = entry(task, 2, ("locking", FIXED), final=(2, "x"), subspaces={"bf16": wide, "master": none})
    kept = Parts(task)
    with kept.flushing():
        kept.add(first)
        kept.add(second)
    again, bare = Parts(task).entries, list_entries(task)
    assert again[0] == first and bare[0] == replace(first, rows={})
    for view in ("bf16", "master"):
        one, two = second.subspaces[view], again[1].subspaces[view]
        assert torch.equal(one.output, two.output) and torch.equal(one.input, two.input)
        assert vars(one) | {"output": 0, "input": 0} == vars(two) | {"output": 0, "input": 0}, "exact in two bytes"
    assert again[1].final == (2, "x") and bare[1].subspaces == {}


def test_only_what_is_of_these_weights_settings_and_engine_serves(task):
    pair, last = task.pairs[0], task.final
    assert entry(task).serves(task, pair, "hill")
    assert not entry(task).serves(task, pair, "locking")
    assert not entry(task, 2).serves(task, pair, "hill")
    for changes in (
        {"after": "other"},
        {"before": f"{pair.before.identity}[0]"},
        {"made_from": task.made_from | {"engine": -1}},
        {"made_from": task.made_from | {"settings": {"k": [5], "hill_k": [4]}}},
    ):
        assert not entry(task, **changes).serves(task, pair, "hill")
    nulls = entry(task, tables=(SHUFFLED, FIXED), final=(last.step, last.after.identity))
    assert nulls.serves(task, pair, SHUFFLED) and nulls.serves(task, pair, FIXED)
    for final in (None, (1, last.after.identity), (last.step, "other")):
        earlier = entry(task, tables=(SHUFFLED, FIXED), final=final)
        assert earlier.serves(task, pair, SHUFFLED), "it does not depend on the final step"
        assert not earlier.serves(task, pair, FIXED)


def test_what_is_lacking_is_said_by_step(task):
    others = tuple(table for table in task.tables if table != "hill")
    assert missing_units(task, []) == dict.fromkeys(STEPS, task.tables)
    assert missing_units(task, [entry(task)]) == {1: others, 2: task.tables}
    final = (task.final.step, task.final.after.identity)
    whole = tuple(unit for table in task.tables for unit in table_units(table))
    assert missing_units(task, [entry(task, step, whole, final=final) for step in STEPS]) == {}
    earlier = [entry(task, step, whole, final=(1, "earlier")) for step in STEPS]
    assert missing_units(task, earlier) == dict.fromkeys(STEPS, ("nulls",))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied"])
def test_a_damaged_part_is_measured_again_and_removed(damage, given, tmp_path, store, taken):
    run(store, *given)
    first, before = everything(store), kept(store)
    (key,) = (key for key in before if "/measured/model.layers.0.self_attn.q_proj/" in key)
    data = store.read(key)
    flipped = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
    store.write(key, {"truncated": data[:-5], "flipped": flipped, "emptied": b""}[damage])
    store.remove("lake/hill")
    taken.clear()
    run(store, *given)
    assert len(taken) == 6  # q at two steps, and its two nulls
    assert same(everything(store), first)
    assert kept(store) == before and store.read(key) == data, "equal parts have equal names"


def test_parts_of_a_step_that_is_not_asked_for_stay(task, store):
    earlier = Parts(task)
    with earlier.flushing():
        earlier.add(entry(task, after="other weights at this step"))
    with earlier.flushing():
        earlier.add(entry(task, 2, made_from=task.made_from | {"engine": -1}))
    with earlier.flushing():
        earlier.add(entry(task, 1))
    with earlier.flushing():
        earlier.add(Entry(**vars(entry(task, 1)) | {"step": 77}))
    stale = Parts(task).stale
    assert len(stale) == 2
    for key in stale:
        store.remove(key)
    assert {found.step for found in Parts(task).entries} == {1, 77}


def test_ray_takes_up_what_a_serial_call_left(given: Folders, tmp_path, store, monkeypatch, workers):
    at_once = Store(f"file://{tmp_path}/at-once")
    run(at_once, *given)
    with monkeypatch.context() as patch:
        patch.setattr(Matrix, "shuffled", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(store, *given)
    assert kept(store)
    measure_import(plan_import(store, *given, CUTS, "x"))
    assert same(everything(store), everything(at_once))


def of_earlier(entries):
    """A part as earlier versions wrote it: rows among the metadata, subspaces as they were computed."""
    tensors, held = {}, []
    for i, each in enumerate(entries):
        facts = vars(each) | {"subspaces": {}}
        for view, found in each.subspaces.items():
            tensors |= {f"{i}.{view}.{side}": found.side(side).clone().contiguous() for side in ("output", "input")}
            names = ("cuts", "errors", "reasons", "method")
            facts["subspaces"][view] = {name: getattr(found, name) for name in names}
        held.append(facts)
    return safetensors.torch.save(tensors, metadata={"part": json.dumps({"gemm_path": "highest", "entries": held})})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parts_of_earlier_versions_are_read_as_they_are(dtype, task, store):
    basis = torch.linalg.qr(torch.randn(9, 2, generator=torch.Generator().manual_seed(1), dtype=dtype)).Q
    some = Subspaces(basis, basis[:5], (2,), (1e-12,), (None,), "svd-f64")
    first = entry(task, rows={"hill": [{"k": 4, "hill": 0.1}]})
    second = entry(task, 2, ("locking",), subspaces={"bf16": some})
    data = of_earlier([first, second])
    store.write(f"{task.folder}/{hashlib.sha256(data).hexdigest()[:24]}.safetensors", data)
    one, two = Parts(task).entries
    assert one == first and two.subspaces["bf16"].errors == (1e-12,)
    assert torch.equal(two.subspaces["bf16"].output, basis) and two.subspaces["bf16"].output.dtype == dtype
    assert Parts(task).stale == [] and [each.step for each in list_entries(task)] == [1, 2]


def test_what_is_used_at_once_is_what_is_read_later(given, tmp_path, store, taken):
    """Similarities are of the subspaces as they are kept, so tables made again are the same to the bit."""
    run(store, *given)
    first = everything(store)
    store.remove("lake/locking/recipe=external.x/seed=0/part-0.parquet")
    taken.clear()
    run(store, *given)
    assert taken == [] and same(everything(store), first)
    assert max(first["locking"]["error"]) < 1e-5


@pytest.mark.parametrize("rows", [b"", b"no zlib", zlib.compress(b"{}"), zlib.compress(b'{"rows": [{}]}')])
def test_rows_that_are_damaged_under_a_fitting_name_are_no_part(rows, task, store):
    kept = Parts(task)
    with kept.flushing():
        kept.add(entry(task))
        kept.add(entry(task, 2))
    (key,) = store.find(task.folder)
    with safetensors.safe_open(store.path(key), "pt") as file:
        metadata = file.metadata()
    data = safetensors.torch.save({"rows": torch.tensor(list(rows), dtype=torch.uint8)}, metadata=metadata)
    store.remove(key)
    store.write(f"{task.folder}/{hashlib.sha256(data).hexdigest()[:24]}.safetensors", data)
    assert Parts(task).entries == []


def test_entries_are_looked_up_by_their_step(task, monkeypatch):
    asked = []
    serves = Entry.serves
    monkeypatch.setattr(Entry, "serves", lambda self, *rest: (asked.append(self.step), serves(self, *rest))[1])
    kept = Parts(task)
    for step in range(500, 600):
        kept.by_step[step].append(replace(entry(task), step=step))
    kept.add(entry(task, 1, task.tables))
    assert kept.find_serving(task.pairs[0], "hill")
    assert set(asked) == {1}


def test_bytes_are_what_is_planned(given: Folders, store):
    """Three bytes a number of the subspaces, and the rest is rows and headers."""
    asked = replace(CUTS, tables=tuple(table for table in CUTS.tables if table != "nulls"))
    run(store, *given, asked)
    task = next(task for task in plan_import(store, *given, asked, "y").work if task.name == Q)
    sizes = sum(len(store.read(key)) for key in kept(store) if "q_proj" in key)
    numbers = 2 * 2 * 16 * (48 + 32)  # snapshots, views
    assert 3 * numbers < sizes < 3 * numbers + 2 * 5000
    estimated = estimates.stored_bytes(task.shape, 2, task.views, task.tables)
    assert 0.5 < estimated / sizes < 2


GROWTH = """
import sys
from pipelines.store.objects import Store
from tests.pipelines.runs.geometry import many

work = many.tasks(Store(sys.argv[1]), 24, 60)
many.made(work[:1])
before = many.highest()
rows = sum(count for count, _ in many.made(work).values())
print(rows, many.highest() - before)
"""


def test_a_driver_holds_rows_in_columns(tmp_path):
    """Files of all tables included: about 400 bytes a row where there are many, and dicts were 5 kB."""
    command = [sys.executable, "-c", GROWTH, f"file://{tmp_path}/store"]
    rows, growth = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert rows > 24 * 60 * 25
    assert growth < 2000 * rows
