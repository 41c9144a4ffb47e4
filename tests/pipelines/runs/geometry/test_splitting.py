"""Large tasks in two: which, with what gain for a schedule, and the same rows and problems as whole ones."""

from dataclasses import replace

import pytest
import torch

from pipelines.runs.geometry import splitting
from pipelines.runs.geometry.measuring import largest_first
from pipelines.runs.geometry.splitting import split_tasks
from pipelines.runs.geometry.tasks import UNIT
from pipelines.store.objects import Store
from pipelines.studies.study import TABLES
from tests.pipelines.runs.conftest import KEY, NULLS, Q, drifted, everything, objects, run, same, save
from tests.pipelines.runs.geometry.test_memory_limits import nowhere


@pytest.fixture
def halved(monkeypatch):
    """Every task that can be split is, however small."""
    monkeypatch.setattr(splitting, "LEAST", 0)


def gain(costs, lanes=2):
    """Sum over the longest lane, when each takes the next as soon as it is free."""
    ends = [0.0] * lanes
    for cost in costs:
        ends[ends.index(min(ends))] += cost
    return sum(ends) / max(ends)


def named(store, count, **options):
    return [replace(nowhere(store, **options), name=f"matrix {i}") for i in range(count)]


def test_only_what_is_large_beside_the_rest_is_split_and_all_tables_stay(store):
    few, many = (named(store, count, shape=(1024, 3072)) for count in (7, 40))
    pieces = split_tasks(few)
    assert len(pieces) == 14 and split_tasks(many) == many
    assert [piece.tables for piece in pieces[:2]] == [tuple(t for t in TABLES if t != "nulls"), ("nulls",)]
    twice = 60 * 1024 * 3072 / UNIT  # of a snapshot, which each piece reads and compares
    assert 0 <= sum(piece.cost for piece in pieces) - sum(task.cost for task in few) <= len(few) * (twice + 1)
    assert all(piece.memory <= few[0].memory for piece in pieces)
    for tables in (("nulls",), ("rotation", "hill")):
        assert len(split_tasks(named(store, 2, tables=tables))) == 2
    assert len(split_tasks(named(store, 2, shape=(48, 32)))) == 2, "a second task would cost more than it saves"
    assert len(split_tasks(named(store, 2, role="embed"))) == 2


def test_two_workers_gain_more_on_a_few_large_matrices(store):
    tasks = named(store, 7, shape=(1024, 3072), snapshots=2)
    whole, pieces = ([task.cost for task in largest_first(found)] for found in (tasks, split_tasks(tasks)))
    assert gain(whole) == pytest.approx(7 / 4) and gain(pieces) >= 1.9


def test_rows_and_problems_are_those_of_whole_tasks(folders, tmp_path, store, halved, monkeypatch):
    broken = drifted(3)
    broken[f"{KEY}.weight"][0, 0] = torch.nan
    given = folders["base"], [(1, folders["one"]), (2, folders["two"]), (3, save(tmp_path / "bad", broken))]
    said = run(store, *given)
    monkeypatch.setattr(splitting, "LEAST", 10**9)
    whole = Store(f"file://{tmp_path}/whole")
    assert said == run(whole, *given) == [f"{KEY}: step 3: 1 non-finite weights"]
    assert same(everything(store), everything(whole))


def test_more_snapshots_join_and_a_damaged_part_is_made_whole(folders, tmp_path, store, halved, taken):
    """Of both pieces one makes a damaged part again under its own name, which the other has found damaged too."""
    given = folders["base"], [(1, folders["one"]), (2, folders["two"])]
    run(store, folders["base"], given[1][:1])
    run(store, *given)
    at_once = Store(f"file://{tmp_path}/at-once")
    run(at_once, *given)
    assert same(everything(store), everything(at_once))
    parts = lambda: {key for key in objects(at_once) if f"/measured/{Q}/" in key}
    before = parts()
    assert len(before) == 2
    for key in before:
        data = at_once.read(key)
        at_once.write(key, data[:-5])
        at_once.remove("lake/hill")
        taken.clear()
        run(at_once, *given)
        assert len(taken) == (4 if taken[0][0] in NULLS else 2) and parts() == before and at_once.read(key) == data
