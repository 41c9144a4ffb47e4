"""Checkpoints of a run elsewhere: seen by the sensor, measured and judged by the asset."""

import json

import dagster as dg
import pytest
from safetensors.torch import save_file

from assets import watch
from assets.definitions import defs
from assets.lane import reason
from assets.resources import StoreResource
from pipelines import lake
from pipelines.runs.external import watchlist
from pipelines.runs.geometry.measuring import list_tasks, measure_tasks
from pipelines.runs.geometry.monitor import TABLES
from pipelines.studies.study import Measurement
from tests.pipelines.runs.planted import STEPS, plant, weights


@pytest.fixture
def elsewhere(tmp_path):
    """elsewhere(*steps, **how): checkpoints of a run under elsewhere.prefix."""
    prefix = tmp_path / "run"
    prefix.mkdir()

    def write(*steps, **how):
        for step in steps:
            folder = prefix / f"checkpoint-{step}"
            folder.mkdir(exist_ok=True)
            save_file(weights(step, 0, **how), folder / "model.safetensors")
            (folder / "config.json").write_text("{}")

    vars(write)["prefix"] = prefix
    return write


@pytest.fixture
def instance(tmp_path):
    """One on disk, which dynamic partitions of a sensor ask for."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


@pytest.fixture
def look(store, instance):
    """look(cursor): one tick of the sensor, whose dynamic partitions the daemon adds."""

    def tick(cursor=None):
        resources = {"store": StoreResource()}
        context = dg.build_sensor_context(
            instance_ref=instance.get_ref(), cursor=cursor, resources=resources, definitions=defs
        )
        found = watch.sensor.evaluate_tick(context)
        for request in found.dynamic_partitions_requests or ():
            instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        return found

    return tick


def steps(tick):
    return {one.partition_key: one.run_config["ops"]["monitor"]["config"]["steps"] for one in tick.run_requests or ()}


def test_what_stands_still_for_two_looks_is_monitored_once(store, elsewhere, look, instance):
    watchlist.add_watch(store, "mine", str(elsewhere.prefix), ("s.ref",))
    empty = look()
    assert steps(empty) == {} and empty.skip_message == "no checkpoint has become ready"
    elsewhere(0, 1)
    first = look(empty.cursor)
    assert steps(first) == {}
    second = look(first.cursor)
    assert steps(second) == {"mine": [1]}
    assert instance.get_dynamic_partitions("external") == instance.get_dynamic_partitions("watched") == ["mine"]
    (event,) = second.asset_events
    assert (event.asset_key.to_user_string(), event.partition) == ("external", "mine")
    assert event.metadata["steps"].value == "1"
    again = look(first.cursor)
    assert [one.run_key for one in again.run_requests] == [one.run_key for one in second.run_requests]
    assert steps(look(second.cursor)) == {}
    elsewhere(2, 4)
    third = look(look(second.cursor).cursor)
    assert steps(third) == {"mine": [1, 2, 4]}, "a run after one that failed makes up for it"
    assert third.run_requests[0].run_key != second.run_requests[0].run_key
    assert len(json.loads(third.cursor)["mine"]["told"]) == 4


def test_one_prefix_that_cannot_be_read_holds_up_no_other(store, elsewhere, look, tmp_path):
    watchlist.add_watch(store, "gone", str(tmp_path / "none"), ("s.ref",))
    watchlist.add_watch(store, "mine", str(elsewhere.prefix), ("s.ref",))
    elsewhere(1)
    first = look()
    assert first.skip_message.startswith("gone: ") and "is not a folder" in first.skip_message
    second = look(first.cursor)
    assert steps(second) == {}
    assert "mine: " in second.skip_message and "holds no step 0 yet; name its first weights" in second.skip_message
    elsewhere(0)
    assert steps(look(look(second.cursor).cursor)) == {"mine": [1]}


def test_what_is_watched_no_more_is_forgotten_and_another_prefix_begins_anew(store, elsewhere, look, tmp_path):
    watchlist.add_watch(store, "mine", str(elsewhere.prefix), ("s.ref",))
    elsewhere(0, 1)
    told = look(look().cursor)
    watchlist.remove_watch(store, "mine")
    assert json.loads(look(told.cursor).cursor) == {}
    (tmp_path / "other").mkdir()
    watchlist.add_watch(store, "mine", str(tmp_path / "other"), ("s.ref",))
    assert json.loads(look(told.cursor).cursor)["mine"]["told"] == []


@pytest.fixture
def monitored(store, execute, instance):
    """monitored(steps): the job of the partition `mine`; its check, and the result."""

    def run(*given):
        instance.add_dynamic_partitions("watched", ["mine"])
        result = execute("watched", "mine", config={"ops": {"monitor": {"config": {"steps": list(given)}}}})
        return next(iter(result.get_asset_check_evaluations()), None), result

    return run


def test_a_watched_run_is_held_against_its_references_as_it_grows(store, elsewhere, monitored):
    for seed in range(3):
        run = plant(store, "s.ref", seed)
        columns = {"study": "s", "recipe": "s.ref", "seed": seed}
        found = measure_tasks(list_tasks(run, list(STEPS[1:]), columns, Measurement(tables=TABLES)), serial=True)
        for table in TABLES:
            lake.write(store, table, found.rows[table], recipe="s.ref", seed=seed)
    watchlist.add_watch(store, "mine", str(elsewhere.prefix), ("s.ref",))
    elsewhere(0, 1, 2)
    check, result = monitored(1, 2)
    assert result.success and check.passed and check.metadata["verdict"].value == "inside"
    # Checkpoints that still grow are left to a later run.
    elsewhere(4, 8, 16, decay=0.95)
    check, result = monitored(1, 2, 4, 8)
    assert result.success and not check.passed and not check.blocking
    assert check.metadata["verdict"].value.startswith("left at step 8: ")
    rows = lake.read_partition(store, "monitor", recipe="external.mine", seed=0)
    assert sorted(set(rows["step"])) == [1, 2, 4, 8]
    (made,) = result.get_asset_materialization_events()
    facts = made.materialization.metadata
    assert facts["dagster/partition_row_count"].value == rows.height and facts["steps"].value == "1, 2, 4, 8"
    assert facts["report"].value.endswith("/external.mine/index.html")
    page = store.read("reports/external.mine/index.html").decode()
    assert 'id="stable-rank"' in page and "At step 8</caption>" in page and "outside</td>" in page


def test_a_run_without_references_is_measured_and_passes(store, elsewhere, monitored):
    watchlist.add_watch(store, "mine", str(elsewhere.prefix), ("s.ref",))
    elsewhere(0, 1)
    check, result = monitored()
    assert result.success and check.passed and check.metadata["verdict"].value == "no reference yet"
    assert lake.read_partition(store, "update_norm", recipe="external.mine", seed=0).height


def test_what_is_not_watched_fails_in_one_line(monitored):
    _, result = monitored()
    remedy = "`opd watch mine --trajectory PREFIX --against RECIPE`"
    assert reason(result) == f"nothing is watched as mine; watch it with {remedy}"
