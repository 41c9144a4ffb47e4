import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import automation, lineage, metadata
from assets.automation import JOBS
from assets.definitions import defs
from assets.partitions import STUDIES, anchor_key, run_key
from opd_ops.geometry import VERSION
from pipelines.lake import TABLES
from pipelines.paper.items import ITEMS
from pipelines.runs.geometry import measuring
from pipelines.statistics import markdown
from pipelines.store.snapshot import LAYOUT

ROOT = Path(__file__).resolve().parents[2]
GRAPH = defs.resolve_asset_graph()


def node(name):
    return GRAPH.get(dg.AssetKey(name))


def test_the_code_location_loads_nothing_heavy():
    code = (
        "import sys; import assets.definitions; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'ray', 'transformers', 'vllm'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_workspace_validates(tmp_path):
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"]
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path)}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "Validation successful for code location opd" in found.stdout + found.stderr


def test_the_assets_are_the_models_the_run_its_tables_and_the_comparison():
    assert {key.to_user_string() for key in GRAPH.get_all_asset_keys()} == {
        *("base", "teacher", "anchor", "trajectory", "training", "evaluation"),
        *("update_support", "rotation", "singular_shift", "spectral_drift", "localization"),
        *("update_norm", "update_spectrum", "hill", "locking", "nulls"),
        *("transfer", "regime", "predictions", "verdicts", "report"),
        *(item.key for item in ITEMS),
        *("external", "monitor"),
    }


GROUPS = {
    "models": {"base", "teacher", "anchor"},
    "trajectories": {"trajectory", "training", "evaluation", "transfer", "external"},
    "geometry": {*measuring.TABLES, "monitor"},
    "verdicts": {"regime", "predictions", "verdicts", "report", *(item.key for item in ITEMS)},
}


def test_the_graph_reads_as_the_method_does_and_nothing_is_anonymous():
    found = {}
    for key in GRAPH.get_all_asset_keys():
        asset = GRAPH.get(key)
        found.setdefault(asset.group_name, set()).add(key.to_user_string())
        assert asset.owners == ["team:geometry"] and asset.kinds and asset.code_version
        assert asset.description and len(asset.description.split()) > 3
    assert found == GROUPS


def test_a_code_version_is_that_of_what_makes_the_asset():
    assert node("rotation").code_version == f"engine {VERSION}"
    assert node("trajectory").code_version == f"snapshots {LAYOUT}"
    report = metadata.digest_sources(*metadata.REPORTING)
    assert {node(name).code_version for name in GROUPS["verdicts"]} == {report}
    assert report != metadata.digest_sources("pipelines.lake")


def test_columns_behind_verdicts_and_their_like_are_declared_columns():
    for name in ("verdicts", "regime", "predictions"):
        (told,) = lineage.of(name).values()
        assert set(told.deps_by_column) <= set(TABLES[name].schema)
        for behind in told.deps_by_column.values():
            for one in behind:
                assert one.column_name in TABLES[one.asset_key.to_user_string()].schema
                assert one.asset_key in node(name).parent_keys
    behind = lineage.of("verdicts")["dagster/column_lineage"].deps_by_column["effect"]
    assert {(one.asset_key.to_user_string(), one.column_name) for one in behind} >= {
        ("rotation", "mean_deg"),
        ("update_norm", "stable_rank"),
        ("evaluation", "accuracy"),
    }


@pytest.mark.parametrize("table", [*measuring.TABLES, "training", "evaluation", "verdicts"])
def test_a_table_carries_its_declared_schema(table):
    shown = node(table).metadata["dagster/column_schema"].columns
    declared = TABLES[table].columns
    assert [(c.name, c.type) for c in shown] == [(c.name, str(c.dtype)) for c in declared]
    assert node(table).description == TABLES[table].meaning or table == "verdicts"
    for column, mine in zip(declared, shown, strict=True):
        assert markdown.escape_markdown(column.meaning) in mine.description
        assert not column.unit or f"[{column.unit}]" in mine.description


PARTITIONS = {
    "studies": {"base", "regime", "predictions", "verdicts", "report"},
    "teachers": {"teacher"},
    "exhibits": {item.key for item in ITEMS},
    "anchors": {"anchor"},
    "runs": {"trajectory", "training", "evaluation", *measuring.TABLES},
    "transfers": {"transfer"},
    "external": {"external"},
    "watched": {"monitor"},
}


def test_every_partition_is_one_that_was_asked_for():
    found = {}
    for key in GRAPH.get_all_asset_keys():
        partitions = GRAPH.get(key).partitions_def
        assert isinstance(partitions, dg.DynamicPartitionsDefinition)
        found.setdefault(partitions.name, set()).add(key.to_user_string())
    assert found == PARTITIONS


def upstream(instance, asset, parent, *partitions):
    """Partitions of `parent` that these partitions of `asset` need, as the graph is wired."""
    mine, theirs = node(asset).partitions_def, node(parent).partitions_def
    mapping = GRAPH.get_partition_mapping(dg.AssetKey(asset), dg.AssetKey(parent))
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(
        mine.subset_with_partition_keys(partitions), mine, theirs, dynamic_partitions_store=instance
    )
    return set(found.partitions_subset.get_partition_keys())


def test_a_table_needs_its_own_run_a_teacher_its_own_base_and_a_run_all_models_and_anchors(instance):
    run = run_key("tiny.opd", 1)
    for table in (*measuring.TABLES, "training", "evaluation"):
        assert upstream(instance, table, "trajectory", run) == {run}
    assert upstream(instance, "teacher", "base", "tiny") == {"tiny"}
    anchors = {anchor_key(study.name, seed) for study in STUDIES.values() if study.anchor for seed in study.seeds}
    assert upstream(instance, "trajectory", "anchor", run) == anchors
    assert upstream(instance, "trajectory", "base", run) == set(STUDIES)


def test_a_comparison_needs_every_partition_of_every_table(instance):
    parents = {key.to_user_string() for key in node("verdicts").parent_keys}
    assert parents == {*measuring.TABLES, "training", "evaluation"}
    for table in parents:
        assert upstream(instance, "verdicts", table, "tiny") == set(instance.get_dynamic_partitions("runs"))
    assert {key.to_user_string() for key in node("report").parent_keys} == {"verdicts", "regime", "predictions"}
    assert upstream(instance, "report", "verdicts", "tiny") == {"tiny"}


def test_checks_stand_on_their_assets_and_only_unreadable_snapshots_block():
    found = {(key.asset_key.to_user_string(), key.name) for key in GRAPH.asset_check_keys}
    families = {"update_support", "rotation", "spectral_drift", "update_norm", "localization", "locking"}
    assert found == {
        ("trajectory", "snapshots_readable"),
        ("evaluation", "learning_happened"),
        ("update_support", "weights_finite"),
        ("update_norm", "within_band"),
        ("monitor", "within_band"),
        ("training", "guard_rail"),
        ("report", "current"),
        *(("verdicts", f"orderings_{family}") for family in families),
    }
    blocking = {key.name for key in GRAPH.asset_check_keys if GRAPH.get_check_spec(key).blocking}
    assert blocking == {"snapshots_readable"}


def test_jobs_take_one_partition_through_one_chain_in_one_process():
    selected = {
        job.name: {key.to_user_string() for key in defs.resolve_job_def(job.name).asset_layer.executable_asset_keys}
        for job in JOBS
        if job.name != "offer"
    }
    assert selected == {
        "models": {"base"},
        "teachers": {"teacher"},
        "anchors": {"anchor"},
        "runs": {"trajectory", "training", "evaluation", *measuring.TABLES},
        "comparison": {"regime", "predictions", "verdicts", "report"},
        "transfers": {"transfer"},
        "exhibits": {item.key for item in ITEMS},
        "watched": {"monitor"},
    }
    assert {defs.resolve_job_def(name).executor_def.name for name in selected} == {"in_process"}


def test_the_sweep_is_one_sensor_of_every_job_that_the_core_needs():
    swept = {job.name for job in JOBS} - {"transfers", "watched", "offer"}
    assert {job.name for job in automation.sweep.jobs} == swept and not defs.schedules


PLACES = {
    "a store": {"resources": {"store": {"config": {"uri": "file:///elsewhere"}}}},
    "a Ray": {"resources": {"cluster": {"config": {"address": "10.0.0.1:6379"}}}},
    "a function to call": {"resources": {"hooks": {"config": {"names": "os:abort"}}}},
}


@pytest.mark.parametrize("job", [job.name for job in JOBS if job.name != "offer"])
def test_a_runs_config_names_no_place_and_no_code(job):
    """Whoever reaches the webserver may send one. All that it can say of the resources is `serial`, a truth value."""
    schema: Any = defs.resolve_job_def(job).run_config_schema.run_config_schema_type
    resources = schema.fields["resources"].config_type.fields
    named = {
        name: getattr(field.config_type.fields["config"].config_type, "fields", {})
        for name, field in resources.items()
        if "config" in field.config_type.fields
    }
    assert {name: set(fields) for name, fields in named.items() if fields} == {"cluster": {"serial"}}


@pytest.mark.parametrize("place", PLACES)
def test_a_run_whose_config_names_a_place_is_refused(place, instance, tmp_path, monkeypatch):
    monkeypatch.setenv("OPD_STORE", str(tmp_path / "store"))
    with pytest.raises(dg.DagsterInvalidConfigError):
        defs.resolve_job_def("comparison").execute_in_process(
            partition_key="tiny", run_config=PLACES[place], instance=instance
        )
    assert not (tmp_path / "store").exists()


def test_a_folder_that_a_runs_config_names_is_not_made(tmp_path, instance):
    """Dagster ignores what is said of a resource that takes nothing."""
    said = {"resources": {"io_manager": {"config": {"base_dir": str(tmp_path / "pickles")}}}}

    @dg.asset
    def number():
        return 1

    made = dg.Definitions(
        [number], resources=defs.resources, executor=defs.executor
    ).resolve_implicit_global_asset_job_def()
    assert made.execute_in_process(run_config=said, instance=instance).output_for_node("number") == 1
    assert not (tmp_path / "pickles").exists()
