import dataclasses
import json
from datetime import UTC, datetime

import dagster as dg
import pytest

from assets import automation
from assets.definitions import defs
from assets.partitions import STUDIES, anchor_key, run_key
from assets.resources import StoreResource
from opd_ops.recipe import AdamW
from pipelines.runs.geometry.measuring import measure_run
from pipelines.runs.verdicts import comparing
from pipelines.store.trajectory import Trajectory

TINY = STUDIES["tiny"]
MODELS, ARMS = TINY.models, TINY.arms("core")
SFT, OTHERS = ARMS[0], ARMS[1:]
NIGHT = datetime(2026, 3, 1, 1, 0, tzinfo=UTC)


@pytest.fixture
def sweep(store, instance):
    """sweep(time): the run requests of one look by night, by job."""

    def look(time=NIGHT, warn=lambda text: None):
        found = {}
        for request in automation.build_requests(instance, store, time, warn):
            found.setdefault(request.job_name, []).append(request)
        return found

    return look


@pytest.fixture
def requested(sweep):
    """requested(): the partitions asked for, by job."""
    return lambda: {job: {r.partition_key for r in found} for job, found in sweep().items()}


def runs(recipes=OTHERS, seeds=TINY.seeds):
    return {run_key(recipe.name, seed) for recipe in recipes for seed in seeds}


def compare(store):
    store.write("reports/tiny/inputs.json", json.dumps(comparing.comparison_inputs(store, TINY)).encode())


def forget(store, recipe, seed):
    """The run's measurement, undone."""
    store.remove(f"{Trajectory(store, recipe.name, seed).prefix}/measured.json")


def test_in_an_empty_store_only_the_base_of_opted_in_studies_is_wanted(requested):
    assert STUDIES["smollm"].nightly == ()
    assert requested() == {"models": {"tiny"}}


def test_only_the_opted_in_suite_of_a_study_is_wanted(whole, settle, requested):
    assert TINY.nightly == ("core",) and len(TINY.suites) > 1
    for recipe in TINY.every_arm():
        if recipe in ARMS:
            forget(whole, recipe, 0)
        else:
            settle(whole, recipe)  # not measured
    assert comparing.started_suites(whole, TINY) == list(TINY.suites)
    assert requested() == {"runs": runs(ARMS, [0])}


def test_with_the_base_complete_the_teacher_is_wanted(store, settle, requested):
    settle(store, MODELS[0])
    assert requested() == {"teachers": {"tiny"}}


def test_what_is_wanted_is_offered_from_then_on_and_no_other_study(store, settle, sweep):
    with dg.DagsterInstance.ephemeral() as fresh:
        automation.build_requests(fresh, store, NIGHT, print)
        offered = {name: set(fresh.get_dynamic_partitions(name)) for name in ("studies", "anchors", "runs")}
    assert offered == {
        "studies": {"tiny"},
        "anchors": {anchor_key("tiny", seed) for seed in TINY.seeds},
        "runs": runs(ARMS),
    }


def test_with_models_the_anchors_are_wanted_and_nothing_that_needs_them(store, settle, requested):
    for model in MODELS:
        settle(store, model)
    assert requested() == {"anchors": {anchor_key("tiny", seed) for seed in TINY.seeds}}


def test_an_anchor_opens_the_runs_of_its_own_seed_and_is_measured_itself(store, settle, requested):
    for model in MODELS:
        settle(store, model)
    settle(store, SFT, 1)
    assert requested() == {
        "anchors": {anchor_key("tiny", 0), anchor_key("tiny", 2)},
        "runs": runs(ARMS, [1]),
    }


def test_a_run_that_was_brought_here_is_measured_whatever_it_descends_from(store, settle, requested):
    for model in MODELS:
        settle(store, model)
    settle(store, OTHERS[0], 1)
    assert requested() == {
        "anchors": {anchor_key("tiny", seed) for seed in TINY.seeds},
        "runs": runs(OTHERS[:1], [1]),
    }


def test_what_is_trained_and_measured_is_left_alone(store, settle, requested):
    for model in MODELS:
        settle(store, model)
    for recipe in ARMS[:2]:
        settle(store, recipe, 0)
        measure_run(store, recipe, 0, TINY.measurement, serial=True)
    assert requested()["runs"] == runs(ARMS[2:], [0])


def test_when_all_is_measured_the_comparison_is_wanted(whole, requested):
    assert requested() == {"comparison": {"tiny"}, "exhibits": {"tiny"}}


def test_nothing_is_wanted_when_all_is_compared_until_a_measurement_is_gone_or_renewed(whole, sweep, requested):
    compare(whole)
    assert sweep() == {}
    forget(whole, SFT, 2)
    assert requested() == {"runs": runs([SFT], [2])}
    prefix = Trajectory(whole, SFT.name, 2).prefix
    measure_run(whole, SFT, 2, TINY.measurement, serial=True)
    found = json.loads(whole.read(f"{prefix}/measured.json"))
    whole.write(f"{prefix}/measured.json", json.dumps(found | {"problems": ["a weight"]}).encode())
    assert requested() == {"comparison": {"tiny"}, "exhibits": {"tiny"}}


def test_tables_of_another_engine_are_stale(whole, requested, monkeypatch):
    compare(whole)
    monkeypatch.setattr("pipelines.runs.geometry.measuring.VERSION", "another")
    assert requested() == {"runs": runs(ARMS)}


def test_a_partition_has_one_key_a_night(store, sweep, settle):
    for model in MODELS:
        settle(store, model)
    keys = lambda *time: [r.run_key for r in sweep(datetime(*time, tzinfo=UTC))["anchors"]]
    first = keys(2026, 3, 1, 1, 0)
    assert len(set(first)) == len(TINY.seeds)
    assert keys(2026, 3, 1, 4, 50) == first
    assert not set(keys(2026, 3, 2, 1, 0)) & set(first)


def test_keys_tell_jobs_apart(store, sweep, settle):
    for model in MODELS:
        settle(store, model)
    settle(store, SFT, 0)
    found = [r.run_key for made in sweep().values() for r in made]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("hour", [0, 1, 5, 6, 23])
def test_the_sensor_works_from_one_to_six_and_says_so_by_day(hour, store, tmp_path, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 3, 1, hour, 59, tzinfo=tz)

    monkeypatch.setattr(automation, "datetime", Clock)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        resources = {"store": StoreResource()}
        context = dg.build_sensor_context(instance_ref=instance.get_ref(), resources=resources, definitions=defs)
        found = automation.sweep.evaluate_tick(context)
    if 1 <= hour < 6:
        assert [(r.job_name, r.partition_key) for r in found.run_requests] == [("models", "tiny")]
    else:
        assert found.skip_message == f"it is {hour:02d}:59 in UTC; the sweep works from 01:00 to 06:00"


@pytest.fixture
def changed(monkeypatch):
    """changed(recipe): from now on the study has the recipe with another learning rate."""

    def change(recipe):
        other = dataclasses.replace(recipe, optimizer=AdamW(learning_rate=0.5))
        swap = lambda recipes: tuple(other if r == recipe else r for r in recipes)
        suites = {suite: swap(arms) for suite, arms in TINY.suites.items()}
        study = dataclasses.replace(TINY, models=swap(TINY.models), suites=suites)
        monkeypatch.setitem(STUDIES, "tiny", study)
        return study

    return change


def wanted(store, study):
    warnings = []
    return list(automation.list_stale(store, study, warnings.append)), warnings


@pytest.mark.parametrize("stage", ["measured", "trained", "begun"])
def test_a_run_of_another_recipe_is_not_requested_but_warned_of(stage, whole, changed):
    prefix = Trajectory(whole, OTHERS[0].name, 1).prefix
    if stage != "measured":
        forget(whole, OTHERS[0], 1)
    if stage == "begun":
        whole.remove(f"{prefix}/end.json")
    found, warnings = wanted(whole, changed(OTHERS[0]))
    assert not {partition for _, partition in found} & runs([OTHERS[0]])
    (told,) = [warning for warning in warnings if f"{prefix} " in warning]
    assert "optimizer.learning_rate: 3e-05 -> 0.5" in told and "\n" not in told


def test_a_comparison_waits_for_runs_of_another_recipe(whole, changed):
    found, _ = wanted(whole, changed(OTHERS[0]))
    assert [job for job, _ in found if job == "comparison"] == []


def test_a_model_of_another_recipe_counts_as_there(whole, changed):
    forget(whole, SFT, 0)
    found, warnings = wanted(whole, changed(MODELS[0]))
    assert found == [("runs", run_key(SFT.name, 0))]
    assert len(warnings) == 1 and "runs/tiny.base/seed-0" in warnings[0]


def test_a_warning_reaches_the_ticks_log(whole, changed, sweep):
    changed(OTHERS[0])
    told = []
    sweep(warn=told.append)
    assert told and all("holds a run of another recipe" in text for text in told)
