"""A fresh Dagster over a store with finished work: all of it is shown, nothing is missing, nothing is told twice."""

import json

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context

from assets import exhibits
from assets.arrivals import Arrivals
from assets.definitions import defs
from assets.partitions import STUDIES, anchor_key, run_key
from pipelines import lake
from pipelines.runs.external.imports import measure_import, plan_import
from pipelines.runs.geometry.measuring import TABLES
from pipelines.runs.verdicts import comparing
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Measurement
from tests.assets.conftest import shown
from tests.pipelines.runs.planted import weights

TINY = STUDIES["tiny"]
SFT, OPD = TINY.arms("core")[:2]
GRAPH = defs.resolve_asset_graph()
RUN = ("trajectory", "training", "evaluation", *TABLES)


@pytest.fixture
def fresh():
    """An instance that never saw the store."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def compared(whole):
    """The whole store, and the record of a comparison that was made from it."""
    whole.write("reports/tiny/index.html", b"page")
    whole.write("reports/tiny/inputs.json", json.dumps(comparing.comparison_inputs(whole, TINY)).encode())
    return whole


def arrive(store, instance):
    arrivals = Arrivals(instance, store)
    arrivals.report()
    return arrivals


def missing(instance):
    """Partitions that are offered and never materialised, by asset."""
    found = {}
    for key in GRAPH.get_all_asset_keys():
        with partition_loading_context(dynamic_partitions_store=instance):
            offered = set(GRAPH.get(key).partitions_def.get_partition_keys())
        if left := offered - set(instance.get_materialized_partitions(key)):
            found[key.to_user_string()] = left
    return found


def test_over_a_complete_store_everything_is_shown_and_nothing_is_missing(compared, fresh):
    assert arrive(compared, fresh).said == "12 runs and 1 comparison found in the store, shown"
    assert missing(fresh) == {}
    for asset in RUN:
        assert len(fresh.get_materialized_partitions(dg.AssetKey(asset))) == 12
    assert fresh.get_materialized_partitions(dg.AssetKey("report")) == {"tiny"}


def test_a_second_start_reports_nothing_and_adds_nothing(compared, fresh):
    arrive(compared, fresh)
    before = fresh.event_log_storage.get_maximum_record_id()
    again = arrive(compared, fresh)
    assert (again.said, again.count) == ("", 0)
    assert fresh.event_log_storage.get_maximum_record_id() == before


def test_what_another_dagster_recorded_of_a_grid_counts(compared, fresh):
    """As an older code location left it: partitions of two dimensions."""
    for recipe in TINY.arms():
        for seed in TINY.seeds:
            key = dg.MultiPartitionKey({"recipe": recipe.name, "seed": str(seed)})
            for asset in RUN:
                fresh.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key))
    for seed in TINY.seeds:
        key = dg.MultiPartitionKey({"study": "tiny", "seed": str(seed)})
        fresh.report_runless_asset_event(dg.AssetMaterialization("anchor", partition=key))
    assert arrive(compared, fresh).said == "1 comparison found in the store, shown"
    assert missing(fresh) == {}


def test_what_is_not_complete_or_not_compared_stays_missing(whole, fresh):
    whole.remove(f"{Trajectory(whole, OPD.name, 1).prefix}/end.json")
    whole.remove(f"{Trajectory(whole, SFT.name, 2).prefix}/measured.json")
    assert arrive(whole, fresh).said == "11 runs found in the store, shown"
    found = missing(fresh)
    assert found.pop("trajectory") == found.pop("training") == found.pop("evaluation") == {run_key(OPD.name, 1)}
    for table in TABLES:
        assert found.pop(table) == {run_key(OPD.name, 1), run_key(SFT.name, 2)}
    assert set(found) == {
        "regime",
        "predictions",
        "verdicts",
        "report",
        *(asset.key.to_user_string() for asset in exhibits.ASSETS),
    }


def test_a_run_that_is_measured_later_is_told_of_then(whole, fresh):
    kept = whole.read(f"{Trajectory(whole, SFT.name, 2).prefix}/measured.json")
    whole.remove(f"{Trajectory(whole, SFT.name, 2).prefix}/measured.json")
    arrive(whole, fresh)
    whole.write(f"{Trajectory(whole, SFT.name, 2).prefix}/measured.json", kept)
    assert arrive(whole, fresh).said == "1 run found in the store, shown"


def test_what_is_shown_of_a_run_is_what_its_job_shows(whole, fresh, execute):
    arrive(whole, fresh)
    made = shown(execute("runs", run_key(OPD.name, 0)))
    for asset in RUN:
        event = fresh.get_latest_materialization_event(dg.AssetKey(asset))
        assert event.asset_materialization.tags["dagster/data_version"]
        (record,) = fresh.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[run_key(OPD.name, 0)]), limit=1
        ).records
        found = record.asset_materialization.metadata
        own = {name: value for name, value in made[asset].items() if name in found}
        assert own == found and "dagster/uri" in found


def test_a_run_that_is_damaged_is_named_and_holds_up_no_other(whole, fresh):
    key = f"{Trajectory(whole, OPD.name, 0).prefix}/run.json"
    whole.write(key, whole.read(key).replace(b"2e-05", b"1e-05").replace(b"3e-05", b"1e-05"))
    arrivals = arrive(whole, fresh)
    assert arrivals.said == "11 runs found in the store, shown"
    (problem,) = arrivals.problems
    assert problem.startswith(f"{OPD.name} seed 0 is not shown: ") and "is not what was written there" in problem


def test_measured_checkpoints_from_elsewhere_are_shown(store, fresh, tmp_path):
    from safetensors.torch import save_file

    for step in (0, 1):
        (tmp_path / str(step)).mkdir()
        save_file(weights(step, 0), tmp_path / str(step) / "model.safetensors")
        (tmp_path / str(step) / "config.json").write_text("{}")
    given = [(1, str(tmp_path / "1"))]
    measure_import(
        plan_import(store, str(tmp_path / "0"), given, Measurement(tables=("update_norm",)), "mine"), serial=True
    )
    assert lake.read_partition(store, "update_norm", recipe="external.mine", seed=0).height
    assert arrive(store, fresh).said == "1 import found in the store, shown"
    assert fresh.get_materialized_partitions(dg.AssetKey("external")) == {"mine"}
    assert "monitor" not in missing(fresh), "what nobody watches is not missing"
    assert arrive(store, fresh).said == ""


def test_anchors_and_models_are_those_of_the_study(whole, fresh):
    arrive(whole, fresh)
    assert fresh.get_materialized_partitions(dg.AssetKey("anchor")) == {anchor_key("tiny", seed) for seed in TINY.seeds}
    for model in ("base", "teacher"):
        assert fresh.get_materialized_partitions(dg.AssetKey(model)) == {"tiny"}
