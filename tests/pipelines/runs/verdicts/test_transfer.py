"""Finished runs on other families: the same problems for all, kept, made again when stale, serial as on Ray."""

import json

import pytest

from opd_ops.recipe import Evaluation, Task
from pipelines import lake
from pipelines.runs.verdicts import transfer
from pipelines.runs.verdicts.transfer import evaluate_transfer, evaluate_transfers, is_transferred
from pipelines.store.trajectory import Trajectory
from pipelines.studies import families
from pipelines.studies.families import Family, chain_families

MINI = {
    "trained": Family(task=Task(name="chains", options={"operations": 1}), max_new_tokens=6),
    "longer": chain_families(2, "M"),
}


@pytest.fixture(autouse=True)
def mini(monkeypatch):
    monkeypatch.setitem(families.FAMILIES, "mini", MINI)
    monkeypatch.setattr(transfer, "EVALUATION", Evaluation(problems=4, samples=2))


def rows(store, name="opd"):
    return lake.read_partition(store, "transfer", recipe=f"mini.{name}", seed=0)


def test_the_first_and_last_weights_answer_every_family_at_every_temperature(seeded, arm):
    store = seeded("pre", "teacher", "opd")
    found = evaluate_transfer(store, arm("opd"), 0)
    assert {(r["step"], r["family"], r["temperature"]) for r in found} == {
        (step, family, temperature) for step in (0, 7) for family in MINI for temperature in (0.0, 1.0)
    }
    assert rows(store).to_dicts() == found
    assert {(r["study"], r["recipe"], r["seed"], r["problems"]) for r in found} == {("mini", "mini.opd", 0, 4)}
    assert {(r["temperature"], r["samples"], r["n"]) for r in found} == {(0.0, 1, 4), (1.0, 2, 8)}


def test_the_family_trained_on_is_the_runs_own_evaluation(seeded, arm):
    """The same problems, uniforms and bf16 weights as in training: the same accuracy."""
    store = seeded("pre", "opd", "teacher")
    evaluate_transfer(store, arm("opd"), 0)
    keys = ["step", "temperature"]
    mine = rows(store).filter(family="trained").sort(keys)
    own = lake.read_partition(store, "evaluation", recipe="mini.opd", seed=0).sort(keys)
    assert mine.select(own.columns).equals(own)


def test_a_run_is_evaluated_once_and_again_when_what_it_was_made_from_changes(seeded, arm, monkeypatch):
    store, recipe = seeded("pre"), arm("pre")
    assert not is_transferred(store, recipe, 0)
    first = evaluate_transfer(store, recipe, 0)
    assert is_transferred(store, recipe, 0)
    calls = []
    served = transfer._serve_model
    monkeypatch.setattr(transfer, "_serve_model", lambda *given: calls.append(given[3]) or served(*given))
    assert evaluate_transfer(store, recipe, 0) == first and calls == []
    monkeypatch.setattr(transfer, "VERSION", 2)
    assert not is_transferred(store, recipe, 0)
    assert evaluate_transfer(store, recipe, 0) == first and calls == [0, 7]
    monkeypatch.setitem(families.FAMILIES, "mini", {"longer": MINI["longer"]})
    assert not is_transferred(store, recipe, 0)
    evaluate_transfer(store, recipe, 0)
    assert set(rows(store, "pre")["family"]) == {"longer"}


def test_rows_without_their_record_or_a_record_without_rows_do_not_count(seeded, arm):
    store, recipe = seeded("pre"), arm("pre")
    evaluate_transfer(store, recipe, 0)
    key = "runs/mini.pre/seed-0/transfer.json"
    record = store.read(key)
    store.remove(key)
    assert not is_transferred(store, recipe, 0)
    store.write(key, record)
    assert is_transferred(store, recipe, 0)
    store.write(key, json.dumps({"from": json.loads(record)["from"] | {"snapshots": {}}}).encode())
    assert not is_transferred(store, recipe, 0)
    store.write(key, record)
    store.remove("lake/transfer/recipe=mini.pre")
    assert not is_transferred(store, recipe, 0)


def test_the_run_itself_is_untouched(seeded, arm, contents):
    store = seeded("pre")
    before = contents(store)
    evaluate_transfer(store, arm("pre"), 0)
    after = contents(store)
    assert {name: data for name, data in after.items() if name in before} == before
    new = {"runs/mini.pre/seed-0/transfer.json", "lake/transfer/recipe=mini.pre/seed=0/part-0.parquet"}
    assert after.keys() - before.keys() == new


def test_ray_and_serial_give_the_same_rows_run_by_run(seeded, arm, workers, monkeypatch):
    store = seeded("pre", "teacher", "opd")
    runs = [(arm(name), 0) for name in ("pre", "teacher", "opd")]
    heard = []
    evaluate_transfers(store, runs, serial=True, done=heard.append)
    assert heard == [1, 2, 3]
    one = {name: rows(store, name) for name in ("pre", "teacher", "opd")}
    # Workers have the declared families only: they get the runs of a study that has them.
    monkeypatch.setattr(transfer, "_evaluate", _with_mini)
    for name in one:
        store.remove(f"runs/mini.{name}/seed-0/transfer.json")
        store.remove(f"lake/transfer/recipe=mini.{name}")
    evaluate_transfers(store, runs, done=heard.append)
    assert all(rows(store, name).equals(found) for name, found in one.items())


def _with_mini(task):
    families.FAMILIES["mini"] = MINI
    transfer.EVALUATION = Evaluation(problems=4, samples=2)
    evaluate_transfer(task.store, task.recipe, task.seed)


def test_a_run_that_is_not_complete_is_refused(store, arm):
    with pytest.raises(ValueError, match=r"runs/mini.opd/seed-0 is not complete: train it"):
        evaluate_transfer(store, arm("opd"), 0)


def test_a_family_that_does_not_fit_the_model_is_refused_before_anything_is_written(seeded, arm, monkeypatch):
    monkeypatch.setitem(families.FAMILIES, "mini", {"long": chain_families(9, "M")})
    store = seeded("pre")
    with pytest.raises(ValueError, match=r"do not fit the model's window of 64"):
        evaluate_transfer(store, arm("pre"), 0)
    assert rows(store, "pre") is None and Trajectory(store, "mini.pre", 0).end() is not None
