"""A second import under a name: what joins, what is measured again, what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import lake
from pipelines.runs.external import imports
from pipelines.runs.external.imports import measure_import, plan
from pipelines.store.objects import Store
from pipelines.studies.study import TABLES, Measurement
from tests.pipelines.runs.conftest import (
    CUTS,
    Q,
    drifted,
    everything,
    model,
    objects,
    record,
    refused,
    rows,
    run,
    same,
    save,
    turned,
)

NO_NULLS = replace(CUTS, tables=tuple(table for table in TABLES if table != "nulls"))


def test_the_default_name_follows_the_base(folders, store):
    imported = plan(store, folders["base"], [(1, folders["one"])], CUTS)
    assert imported.recipe == f"external.{imported.record['base']['stamp'][:12]}"
    assert plan(store, folders["base"], [(2, folders["two"])], CUTS).recipe == imported.recipe
    assert plan(store, folders["one"], [(2, folders["two"])], CUTS).recipe != imported.recipe


def test_a_second_call_adds_its_snapshots(folders, tmp_path, store, taken):
    at_once = Store(f"file://{tmp_path}/at-once")
    run(at_once, folders["base"], [(1, folders["one"]), (2, folders["two"])])
    run(store, folders["base"], [(2, folders["two"])])
    taken.clear()
    run(store, folders["base"], [(1, folders["one"])])
    assert {step for _, step in taken} == {1}, "of step 2 nothing is measured again: it still is the final one"
    assert {(row["step"], row["step_other"]) for row in rows(store, "locking")} == {(1, 2)}
    assert same(everything(store), everything(at_once))
    assert record(store)["snapshots"] == record(at_once)["snapshots"]


def test_a_new_final_step_measures_the_nulls_of_all_again_and_nothing_else(folders, tmp_path, store, taken):
    at_once = Store(f"file://{tmp_path}/at-once")
    run(at_once, folders["base"], [(1, folders["one"]), (2, folders["two"])])
    run(store, folders["base"], [(1, folders["one"])])
    taken.clear()
    run(store, folders["base"], [(2, folders["two"])])
    assert {step for tables, step in taken if tables == "nulls"} == {1, 2}
    assert {step for tables, step in taken if tables != "nulls"} == {2}
    assert same(everything(store), everything(at_once))


def test_the_same_again_measures_nothing(folders, tmp_path, store, monkeypatch):
    run(store, folders["base"], [(1, folders["one"]), (2, folders["two"])])
    before = objects(store)
    monkeypatch.setattr(imports, "measure", None)
    moved = shutil.move(folders["two"], tmp_path / "moved")
    shutil.rmtree(folders["one"])
    again = plan(store, folders["base"], [(2, str(moved))], CUTS, "x")
    assert (again.fresh, again.steps, again.work) == (True, (1, 2), [])
    assert measure_import(again, serial=True) == []
    assert objects(store) == before


def test_other_settings_or_engine_measure_everything_again(folders, store, monkeypatch, taken):
    run(store, folders["base"], [(1, folders["one"]), (2, folders["two"])])
    before = {key for key in objects(store) if "/measured/" in key}
    others = Measurement(k=(2, 8), hill_k=(4,))
    taken.clear()
    run(store, folders["base"], [(1, folders["one"])], others)
    assert len(taken) == 2 * (6 + 4)
    assert {(row["step"], row["k"]) for row in rows(store, "rotation", Q)} == {(t, k) for t in (1, 2) for k in (2, 8)}
    assert not before & objects(store).keys(), "parts of other settings are removed"
    monkeypatch.setattr(imports, "VERSION", imports.VERSION + 1)
    assert not plan(store, folders["base"], [(1, folders["one"])], others, "x").fresh


def test_other_tables_are_measured_alone_and_leave_the_first_as_they_are(folders, tmp_path, store, taken):
    given = [(1, folders["one"]), (2, folders["two"])]
    at_once = Store(f"file://{tmp_path}/at-once")
    run(at_once, folders["base"], given)
    some = replace(CUTS, tables=("rotation", "locking"))
    run(store, folders["base"], given, some)
    first = objects(store)
    taken.clear()
    run(store, folders["base"], given, NO_NULLS)
    assert not any("rotation" in tables or "locking" in tables for tables, _ in taken)
    found = everything(store)
    assert all(found[table].equals(everything(at_once)[table]) for table in NO_NULLS.tables)
    assert found["nulls"] is None
    assert all(objects(store)[key] == data for key, data in first.items() if key.startswith("lake/rotation"))
    assert plan(store, folders["base"], given, some, "x").fresh


def test_a_table_says_which_steps_it_holds(folders, store):
    run(store, folders["base"], [(1, folders["one"])], NO_NULLS)
    run(store, folders["base"], [(2, folders["two"])], replace(CUTS, tables=("hill",)))
    made = record(store)["tables"]
    assert (list(made["rotation"]["steps"]), list(made["hill"]["steps"])) == (["1"], ["1", "2"])
    assert {row["step"] for row in rows(store, "rotation")} == {1}
    assert plan(store, folders["base"], [(2, folders["two"])], replace(CUTS, tables=("hill",)), "x").fresh
    assert not plan(store, folders["base"], [(2, folders["two"])], NO_NULLS, "x").fresh


def test_roles_come_back_without_being_measured_again(folders, store, taken):
    def chosen(*roles):
        found = plan(store, folders["base"], [(1, folders["one"])], NO_NULLS, "x", roles)
        measure_import(found, serial=True)
        return {row["role"] for row in rows(store, "update_support")}

    assert chosen("q") == {"q"}
    assert chosen("k") == {"k"}
    taken.clear()
    assert chosen("q", "k") == {"q", "k"}
    assert taken == []


def test_absent_tables_are_written_again(folders, store, taken):
    run(store, folders["base"], [(1, folders["one"])])
    store.remove("lake/hill")
    taken.clear()
    run(store, folders["base"], [(1, folders["one"])])
    assert rows(store, "hill") and taken == []


def test_another_base_needs_another_name(folders, tmp_path, store):
    run(store, folders["base"], [(1, folders["one"])])
    other = save(tmp_path / "other", model(**{Q: turned(1.0)}))
    refused(store, other, [(2, folders["two"])], "external.x", folders["base"], other, "another --name")
    run(store, other, [(2, folders["two"])], name="y")
    assert [row["step"] for row in rows(store, "spectral_drift", Q)] == [1]
    assert [row["step"] for row in rows(store, "spectral_drift", Q, recipe="external.y")] == [2]


def test_a_step_keeps_its_contents(folders, store):
    run(store, folders["base"], [(1, folders["one"])])
    parts = ("other weights at step 1", folders["one"], folders["two"], "another --name")
    refused(store, folders["base"], [(1, folders["two"])], *parts)


def test_what_is_gone_is_needed_only_where_it_must_be_read(folders, tmp_path, store):
    run(store, folders["base"], [(1, folders["one"])])
    moved = shutil.move(folders["one"], tmp_path / "moved")
    gone = f"recorded snapshot 1 is gone from file://{folders['one']}"
    refused(
        store, folders["base"], [(2, folders["two"])], gone, "leave nulls out", "--snapshot 1=REF", "another --name"
    )
    wider = replace(NO_NULLS, k=(4, 8))
    refused(store, folders["base"], [(2, folders["two"])], gone, "must be read; give it as", measurement=wider)
    run(store, folders["base"], [(2, folders["two"])], NO_NULLS)
    at_once = Store(f"file://{tmp_path}/at-once")
    run(at_once, folders["base"], [(1, str(moved)), (2, folders["two"])])
    assert all(everything(store)[table].equals(everything(at_once)[table]) for table in NO_NULLS.tables)
    assert run(store, folders["base"], [(1, str(moved)), (2, folders["two"])]) == []
    assert record(store)["snapshots"]["1"]["ref"] == f"file://{moved}"
    assert same(everything(store), everything(at_once))


def test_a_final_step_that_is_gone_is_needed_for_nulls_of_others(folders, store):
    run(store, folders["base"], [(2, folders["two"])])
    shutil.rmtree(folders["two"])
    gone = f"recorded snapshot 2 is gone from file://{folders['two']}"
    refused(store, folders["base"], [(1, folders["one"])], gone, "leave nulls out", "--snapshot 2=REF")
    run(store, folders["base"], [(1, folders["one"])], NO_NULLS)
    assert {(row["step"], row["step_other"]) for row in rows(store, "locking")} == {(1, 2)}


def test_recorded_snapshots_must_be_what_they_were(folders, tmp_path, store):
    run(store, folders["base"], [(1, folders["one"])])
    shutil.rmtree(folders["one"])
    save(Path(folders["one"]), drifted(3))
    parts = (f"recorded snapshot 1 ({folders['one']}) has changed", "--snapshot 1=REF", "another --name")
    refused(store, folders["base"], [(2, folders["two"])], *parts)


def test_a_record_of_another_layout(folders, store):
    run(store, folders["base"], [(1, folders["one"])])
    store.write("runs/external.x/seed-0/import.json", json.dumps(record(store) | {"layout": 1}).encode())
    refused(store, folders["base"], [(1, folders["one"])], "layout 1 and this version reads 2", "another --name")


class Stopping:
    """The lake, interrupted at the table hill."""

    def write(self, store: Store, table: str, found: list, **partition: str | int) -> str:
        if table == "hill":
            raise KeyboardInterrupt
        return lake.write(store, table, found, **partition)


def test_stopped_between_two_tables_it_vouches_for_nothing(folders, store, monkeypatch, taken):
    run(store, folders["base"], [(1, folders["one"])])
    with monkeypatch.context() as patch:
        patch.setattr(imports, "lake", Stopping())
        with pytest.raises(KeyboardInterrupt):
            run(store, folders["base"], [(2, folders["two"])])
    again = plan(store, folders["base"], [(1, folders["one"])], CUTS, "x")
    assert (again.fresh, again.steps) == (False, (1, 2))
    taken.clear()
    measure_import(again, serial=True)
    assert taken == [], "everything was measured before the tables were written"
    assert plan(store, folders["base"], [(1, folders["one"])], CUTS, "x").fresh
    assert {row["step"] for row in rows(store, "hill")} == {1, 2}
