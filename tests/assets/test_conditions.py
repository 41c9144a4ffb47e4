"""Comparisons that follow runs: which, when, and that nothing is done that does not depend on what was made again."""

import json
from typing import Any

import dagster as dg
import pytest

from assets import conditions, exhibits
from assets.automation import list_stale
from assets.definitions import defs
from assets.partitions import STUDIES, run_key
from assets.resources import StoreResource
from pipelines.runs.geometry import measuring
from pipelines.runs.geometry.measuring import TABLES, measure_run
from pipelines.runs.verdicts import comparing
from pipelines.store.trajectory import Trajectory

TINY = STUDIES["tiny"]
SFT, OPD = TINY.arms("core")[:2]
DECIDED = ("regime", "predictions", "verdicts", "report")
COMPARISON = (*DECIDED, *(asset.key.to_user_string() for asset in exhibits.ASSETS))
SELECTION = dg.AssetSelection.assets(*COMPARISON).without_checks()


@pytest.fixture
def evaluated(store, instance, monkeypatch):
    """evaluated(): one tick of the conditions: requested partitions by asset."""
    monkeypatch.setenv("OPD_STORE", store.uri)
    cursor = None

    def tick():
        nonlocal cursor
        found = dg.evaluate_automation_conditions(defs, instance, asset_selection=SELECTION, cursor=cursor)
        cursor = found.cursor
        asked = {name: found.get_requested_partitions(dg.AssetKey(name)) for name in COMPARISON}
        return {name: set(keys) for name, keys in asked.items() if keys}

    return tick


@pytest.fixture
def measured(store, settle, instance):
    """measured(recipe, seed): a run trained and measured, and Dagster knows."""

    def make(recipe, seed):
        if Trajectory(store, recipe.name, seed).end() is None:
            settle(store, recipe, seed)
        measure_run(store, recipe, seed, TINY.measurement, serial=True)
        report(instance, ("training", "evaluation", *TABLES), run_key(recipe.name, seed))

    return make


def report(instance, assets, partition):
    for asset in assets:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))


def compare(store, instance):
    """The comparison, as its job would leave it."""
    store.write("reports/tiny/inputs.json", json.dumps(comparing.comparison_inputs(store, TINY)).encode())
    report(instance, COMPARISON, "tiny")


ALL = {name: {"tiny"} for name in COMPARISON}


def test_a_study_is_compared_once_after_its_runs_have_changed(store, instance, evaluated, measured):
    assert evaluated() == {}
    measured(OPD, 0)
    measured(OPD, 1)
    assert evaluated() == ALL, "of this study, and of no other"
    assert evaluated() == {}, "what was asked for is not asked for again"
    compare(store, instance)
    assert evaluated() == {}
    report(instance, TABLES, str(run_key(OPD.name, 0)))
    assert evaluated() == {}, "found again, and the same"
    measured(SFT, 0)
    assert evaluated() == ALL


def test_making_one_run_again_makes_again_what_depends_on_it_alone(
    store, settle, instance, execute, evaluated, measured, monkeypatch
):
    for model in TINY.models:
        settle(store, model)
    for recipe, seed in ((SFT, 0), (OPD, 0), (OPD, 1)):
        measured(recipe, seed)
    evaluated()
    compare(store, instance)
    before = set(list_stale(store, TINY, print))
    # The run is trained again and has other weights.
    store.remove(Trajectory(store, OPD.name, 0).prefix)
    trained = settle(store, OPD, 0, drawn=9)
    key = str(run_key(OPD.name, 0))
    assert set(list_stale(store, TINY, print)) - before == {("runs", key)}

    calls = []
    one = measuring.measure_matrix
    monkeypatch.setattr(measuring, "measure_matrix", lambda task: (calls.append(task.prefix), one(task))[1])
    result = execute("runs", key)
    made = [(e.asset_key.to_user_string(), e.partition) for e in result.get_asset_materialization_events()]
    assert sorted(made) == sorted((asset, key) for asset in ("trajectory", "training", "evaluation", *TABLES))
    assert set(calls) == {trained.prefix}
    assert evaluated() == ALL
    assert set(list_stale(store, TINY, print)) == before


def test_a_report_that_was_left_behind_is_found_whatever_its_age(store, instance, measured):
    check: Any = lambda: conditions.current(StoreResource())
    assert check().passed, "nothing is there"
    measured(OPD, 0)
    found = check()
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    assert found.metadata["behind"].value == "tiny"
    compare(store, instance)
    assert check().passed


def test_the_sensor_asks_for_one_run_of_what_is_decided_and_one_of_figures_and_catches_up_when_it_is_switched_on(
    store, instance, measured, monkeypatch
):
    monkeypatch.setenv("OPD_STORE", store.uri)
    measured(OPD, 0)
    found: list[Any] = [None]
    for _ in range(2):
        context = dg.build_sensor_context(
            instance=instance, cursor=found[-1] and found[-1].cursor, repository_def=defs.get_repository_def()
        )
        found.append(conditions.sensor.evaluate_tick(context))
    requests = found[1].run_requests
    asked = {frozenset(key.to_user_string() for key in request.asset_selection) for request in requests}
    assert asked == {frozenset(DECIDED), frozenset(set(COMPARISON) - set(DECIDED))}
    assert {request.partition_key for request in requests} == {"tiny"}
    assert not found[2].run_requests
