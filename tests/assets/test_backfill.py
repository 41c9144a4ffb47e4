"""A study as one backfill: posted as `opd study backfill` does, and carried out by Dagster's own daemon."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.asset_backfill import AssetBackfillData
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.test_utils import create_test_daemon_workspace_context, instance_for_test
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster_graphql.cli import execute_query

from assets import backfill, webserver
from assets.partitions import STUDIES, anchor_key, run_key
from pipelines.runs.geometry.measuring import TABLES, measure_run
from pipelines.runs.verdicts import comparing

TINY = STUDIES["tiny"]
SFT, OPD = TINY.arms("core")[:2]
LAUNCHED = {"module": "dagster._core.launcher.sync_in_memory_run_launcher", "class": "SyncInMemoryRunLauncher"}


def test_a_selection_is_every_asset_with_the_partitions_of_the_study():
    found = backfill.selection(TINY, [OPD], [0, 2])
    runs = [run_key(OPD.name, 0), run_key(OPD.name, 2)]
    assert found["base"] == found["teacher"] == found["verdicts"] == found["report"] == ["tiny"]
    assert found["anchor"] == [anchor_key("tiny", 0), anchor_key("tiny", 2)]
    assert all(found[asset] == runs for asset in ("trajectory", "training", "evaluation", *TABLES))
    assert "anchor" not in backfill.selection(STUDIES["smollm"], [], [0])
    assert found["figure2"] == ["tiny"]


def test_runs_that_a_backfill_cannot_order_are_refused_until_they_are_there(store, settle):
    backfill.require_order(store, TINY, [SFT, OPD], [0, 1])
    late = TINY.arms("steering")[0]  # guarded by the band of other runs
    told = rf"{late.name} seed 1 needs tiny\.opd seed \d, which is not measured, .* or use `opd study run tiny`"
    with pytest.raises(ValueError, match=told) as caught:
        backfill.require_order(store, TINY, [late], [1])
    assert "\n" not in str(caught.value)
    for seed in TINY.seeds:
        settle(store, OPD, seed)
        measure_run(store, OPD, seed, TINY.measurement, serial=True)
    backfill.require_order(store, TINY, [late], [1])


class Web(HTTPServer):
    """GraphQL of a workspace, as our webserver answers it."""

    def __init__(self, workspace):
        super().__init__(("127.0.0.1", 0), Handler)
        self.workspace = workspace
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Any

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(execute_query(self.server.workspace, asked["query"], asked["variables"])).encode()
        self.send_response(200 if self.path == "/graphql" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def dagster(store, monkeypatch):
    """A workspace over a store, whose runs are executed in this process, and the address of its GraphQL."""
    monkeypatch.setenv("OPD_STORE", store.uri)
    monkeypatch.setattr(AssetBackfillData, "from_partitions_by_assets", AssetBackfillData.from_partitions_by_assets)
    webserver.load_partitions()
    silent = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    direct = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
    settings = {"run_launcher": LAUNCHED, "run_coordinator": direct, "compute_logs": silent}
    location = ModuleTarget("assets.definitions", None, None, "opd")
    with (
        instance_for_test(overrides=settings) as instance,
        create_test_daemon_workspace_context(location, instance) as workspace,
    ):
        web = Web(workspace)
        try:
            yield workspace, instance, f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            web.server_close()


def test_a_study_is_backfilled_in_order_and_a_second_backfill_trains_and_measures_nothing(
    dagster, store, settle, monkeypatch, capsys
):
    workspace, instance, url = dagster
    for recipe in TINY.models:
        settle(store, recipe)
    for recipe in (SFT, OPD):
        settle(store, recipe, 1)
    measure_run(store, OPD, 1, TINY.measurement, serial=True)  # what is left of a run is then found, without a Ray
    page = "reports/tiny/index.html"
    stand_ins = {"publish_report": page, "render_headline": "", "render_suites": {}, "render_figures": {}}
    for name, found in stand_ins.items():
        monkeypatch.setattr(comparing, name, lambda *_, found=found: found)

    assert backfill.main(["tiny", "--recipe", OPD.name, "--seed", "1", "--url", url]) == 0
    told = capsys.readouterr().out
    (asked,) = instance.get_backfills()
    assert told.splitlines() == [
        f"backfill {asked.backfill_id} of tiny, suite core: 1 arms, 1 seeds",
        f"{url}/runs/b/{asked.backfill_id}",
    ]
    log = logging.getLogger("backfill")
    for _ in range(8):
        errors = [error for error in execute_backfill_iteration(workspace, log) if error]
        assert not errors
        if instance.get_backfill(asked.backfill_id).status == BulkActionStatus.COMPLETED_SUCCESS:
            break
    else:
        raise AssertionError([run.status for run in instance.get_runs()])
    runs = sorted(instance.get_run_records(), key=lambda record: record.create_timestamp)
    assert {record.dagster_run.status for record in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert instance.get_dynamic_partitions("runs") == [run_key(OPD.name, 1)], "what was asked for, and nothing else"
    base, *models, run, comparison, figures = [record.dagster_run.tags["dagster/partition"] for record in runs]
    assert (base, sorted(models), run) == ("tiny", [anchor_key("tiny", 1), "tiny"], run_key(OPD.name, 1))
    assert comparison == figures == "tiny"
    assert {record.dagster_run.tags["opd/study"] for record in runs} == {"tiny"}
    for asset, keys in backfill.selection(TINY, [OPD], [1]).items():
        assert instance.get_materialized_partitions(dg.AssetKey(asset)) == {str(key) for key in keys}, asset


def test_what_cannot_be_asked_for_is_one_line(store, capsys, monkeypatch):
    monkeypatch.setenv("OPD_STORE", store.uri)
    for arguments, told in (
        (["none"], "'none'"),
        (["tiny", "--seed", "9"], "study tiny has no seed 9"),
        (["tiny", "--url", "http://127.0.0.1:1"], "no Dagster answers at http://127.0.0.1:1 ("),
        (["tiny", "--url", "ftp:nowhere"], "no Dagster answers at ftp:nowhere ("),
    ):
        assert backfill.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and told in error and error.count("\n") == 1
