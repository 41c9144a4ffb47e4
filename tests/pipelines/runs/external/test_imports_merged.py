"""A second import under a name: what joins, what is measured again, what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.runs.external import imports
from pipelines.runs.external.imports import measure_import, plan_import
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
    imported = plan_import(store, folders["base"], [(1, folders["one"])], CUTS)
    assert imported.recipe == f"external.{imported.record['base']['stamp'][:12]}"
    assert plan_import(store, folders["base"], [(2, folders["two"])], CUTS).recipe == imported.recipe
    assert plan_import(store, folders["one"], [(2, folders["two"])], CUTS).recipe != imported.recipe


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


def test_a_new_final_step_measures_what_compares_with_it_again_and_nothing_else(folders, tmp_path, store, taken):
    at_once = Store(f"file://{tmp_path}/at-once")
    run(at_once, folders["base"], [(1, folders["one"]), (2, folders["two"])])
    run(store, folders["base"], [(1, folders["one"])])
    taken.clear()
    run(store, folders["base"], [(2, folders["two"])])
    assert {step for tables, step in taken if tables == "fixed_direction"} == {1, 2}
    assert {step for tables, step in taken if tables != "fixed_direction"} == {2}
    assert same(everything(store), everything(at_once))


def test_the_same_again_measures_nothing(folders, tmp_path, store, monkeypatch):
    run(store, folders["base"], [(1, folders["one"]), (2, folders["two"])])
    before = objects(store)
    monkeypatch.setattr(imports, "measure_tasks", None)
    moved = shutil.move(folders["two"], tmp_path / "moved")
    shutil.rmtree(folders["one"])
    again = plan_import(store, folders["base"], [(2, str(moved))], CUTS, "x")
    assert (again.fresh, again.steps, again.work) == (True, (1, 2), [])
    assert measure_import(again, serial=True) == []
    assert objects(store) == before


def test_other_settings_or_engine_measure_everything_again(folders, store, monkeypatch, taken):
    run(store, folders["base"], [(1, folders["one"]), (2, folders["two"])])
    before = {key for key in objects(store) if "/measured/" in key}
    others = Measurement(k=(2, 8), hill_k=(4,))
    taken.clear()
    run(store, folders["base"], [(1, folders["one"])], others)
    assert len(taken) == 2 * (6 + 4 * 2)
    assert {(row["step"], row["k"]) for row in rows(store, "rotation", Q)} == {(t, k) for t in (1, 2) for k in (2, 8)}
    assert not before & objects(store).keys(), "parts of other settings are removed"
    monkeypatch.setattr(imports, "VERSION", imports.VERSION + 1)
    assert not plan_import(store, folders["base"], [(1, folders["one"])], others, "x").fresh


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
    assert plan_import(store, folders["base"], given, some, "x").fresh


def test_a_table_says_which_steps_it_holds(folders, store):
    run(store, folders["base"], [(1, folders["one"])], NO_NULLS)
    run(store, folders["base"], [(2, folders["two"])], replace(CUTS, tables=("hill",)))
    made = record(store)["tables"]
    assert (list(made["rotation"]["steps"]), list(made["hill"]["steps"])) == (["1"], ["1", "2"])
    assert {row["step"] for row in rows(store, "rotation")} == {1}
    assert plan_import(store, folders["base"], [(2, folders["two"])], replace(CUTS, tables=("hill",)), "x").fresh
    assert not plan_import(store, folders["base"], [(2, folders["two"])], NO_NULLS, "x").fresh


def test_roles_come_back_without_being_measured_again(folders, store, taken):
    def chosen(*roles):
        found = plan_import(store, folders["base"], [(1, folders["one"])], NO_NULLS, "x", roles)
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


def test_a_final_step_that_is_gone_is_not_needed_for_nulls_that_are_kept(folders, tmp_path, store):
    given = [(1, folders["one"]), (2, folders["two"]), (3, save(tmp_path / "three", drifted(3)))]
    run(store, folders["base"], given)
    later = replace(CUTS, nulls_at="2")
    at_once = Store(f"file://{tmp_path}/at-once")
    run(at_once, folders["base"], given, later)
    shutil.rmtree(given[2][1])
    assert run(store, folders["base"], given[:2], later) == []
    assert {row["step"] for row in rows(store, "nulls", Q)} == {2, 3}, "the last step is always among them"
    assert same(everything(store), everything(at_once))


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


def stopped_at(patch, name):
    """A write of an object whose key holds `name` is the last thing this process does."""
    write = Store.write

    def stopping(store, key, data):
        if name in key:
            raise KeyboardInterrupt
        write(store, key, data)

    patch.setattr(Store, "write", stopping)


@pytest.mark.parametrize("table", ["update_support", "hill", "timing"], ids=["the first", "in between", "after all"])
def test_stopped_between_two_writes_the_same_call_goes_on_from_what_was_measured(
    table, folders, store, monkeypatch, taken
):
    run(store, folders["base"], [(1, folders["one"])])
    with monkeypatch.context() as patch:
        stopped_at(patch, f"lake/{table}")
        with pytest.raises(KeyboardInterrupt):
            run(store, folders["base"], [(2, folders["two"])])
    again = plan_import(store, folders["base"], [(1, folders["one"])], CUTS, "x")
    assert (again.fresh, again.steps) == (table == "timing", (1, 2))
    taken.clear()
    measure_import(again, serial=True)
    assert taken == [], "everything was measured before the tables were written"
    assert plan_import(store, folders["base"], [(1, folders["one"])], CUTS, "x").fresh
    assert {row["step"] for row in rows(store, "hill")} == {1, 2}


def test_stopped_before_its_record_a_call_has_changed_nothing_but_what_it_measured(folders, store, monkeypatch):
    run(store, folders["base"], [(1, folders["one"])])
    before = objects(store)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "create", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(store, folders["base"], [(2, folders["two"])])
    assert before.items() <= objects(store).items()
    assert all("/measured/" in key for key in objects(store).keys() - before.keys())
    assert plan_import(store, folders["base"], [(1, folders["one"])], CUTS, "x").fresh


def test_a_table_of_another_call_is_not_taken_for_that_of_the_record(folders, store, taken):
    """As two calls left it that wrote the same tables in turn: one of them is of fewer steps than the record says."""
    run(store, folders["base"], [(1, folders["one"])])
    early = {table: store.read(f"lake/{table}/recipe=external.x/seed=0/part-0.parquet") for table in TABLES}
    run(store, folders["base"], [(2, folders["two"])])
    whole = objects(store)
    for table in ("hill", "locking"):
        store.write(f"lake/{table}/recipe=external.x/seed=0/part-0.parquet", early[table])
    taken.clear()
    assert not plan_import(store, folders["base"], [(2, folders["two"])], CUTS, "x").fresh
    run(store, folders["base"], [(2, folders["two"])])
    aside = "lake/timing"
    repaired = objects(store)
    assert taken == [] and repaired.keys() == whole.keys()
    assert all(repaired[key] == data for key, data in whole.items() if not key.startswith(aside))


@pytest.mark.parametrize("steps", [[(2, "two")], [(1, "one"), (2, "two")]], ids=["another step", "both"])
def test_what_is_recorded_while_a_call_measures_is_in_its_tables(steps, folders, tmp_path, store):
    """Planned before the other call recorded anything, and written after it."""
    late = plan_import(store, folders["base"], [(1, folders["one"])], CUTS, "x")
    run(store, folders["base"], [(step, folders[which]) for step, which in steps])
    assert measure_import(late, serial=True) == []
    at_once = Store(f"file://{tmp_path}/at-once")
    run(at_once, folders["base"], [(1, folders["one"]), (2, folders["two"])])
    assert same(everything(store), everything(at_once))
    assert record(store)["snapshots"] == record(at_once)["snapshots"]


@pytest.mark.parametrize("at", ["lake/hill", "lake/timing"], ids=["between two tables", "after the last"])
def test_what_is_recorded_while_a_call_writes_is_in_all_tables_in_the_end(at, folders, tmp_path, store, monkeypatch):
    """The other call begins and ends between two writes of this one, which then writes over its tables."""
    write, other = Store.write, [(2, folders["two"])]

    def interrupted(store, key, data):
        if key.startswith(at) and other:
            run(store, folders["base"], [other.pop()])
        write(store, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", interrupted)
        run(store, folders["base"], [(1, folders["one"])])
    at_once = Store(f"file://{tmp_path}/at-once")
    run(at_once, folders["base"], [(1, folders["one"]), (2, folders["two"])])
    assert other == [] and same(everything(store), everything(at_once))
    assert plan_import(store, folders["base"], [(1, folders["one"]), (2, folders["two"])], CUTS, "x").fresh


def test_a_call_with_other_settings_meanwhile_leaves_the_tables_of_one_of_both(folders, store, monkeypatch):
    write, others = Store.write, Measurement(k=(2,), hill_k=(4,))
    waiting = [others]

    def interrupted(store, key, data):
        if key.startswith("lake/hill") and waiting:
            run(store, folders["base"], [(2, folders["two"])], waiting.pop())
        write(store, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", interrupted)
        run(store, folders["base"], [(1, folders["one"])])
    assert {row["k"] for row in rows(store, "rotation")} == {4}
    for table in ("rotation", "hill", "update_norm"):
        assert {row["step"] for row in rows(store, table)} == {1, 2}
    assert plan_import(store, folders["base"], [(1, folders["one"])], CUTS, "x").fresh


def test_another_base_or_other_weights_recorded_meanwhile_are_refused_and_left_as_they_are(folders, tmp_path, store):
    late = plan_import(store, folders["base"], [(1, folders["one"])], CUTS, "x")
    weights = plan_import(store, folders["base"], [(2, folders["one"])], CUTS, "x")
    other = save(tmp_path / "other", model(**{Q: turned(1.0)}))
    base = plan_import(store, other, [(3, folders["one"])], CUTS, "x")
    run(store, folders["base"], [(2, folders["two"])])
    kept = {key: data for key, data in objects(store).items() if "/measured/" not in key}
    for refused_late, words in ((base, "was imported with the base"), (weights, "has other weights at step 2")):
        with pytest.raises(ValueError, match=words) as caught:
            measure_import(refused_late, serial=True)
        assert "\n" not in str(caught.value)
        assert kept.items() <= objects(store).items()
    assert measure_import(late, serial=True) == []


def test_a_record_that_others_keep_replacing_is_given_up_in_one_line(folders, store, monkeypatch):
    monkeypatch.setattr(imports, "ATTEMPTS", 2)
    monkeypatch.setattr(imports.records, "write", lambda *_: (_ for _ in ()).throw(FileExistsError))
    with pytest.raises(
        ValueError, match=r"^the record of external\.x was replaced 2 times by others meanwhile; the same"
    ):
        run(store, folders["base"], [(1, folders["one"])])
