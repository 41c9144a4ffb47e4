"""How many runs are at work at once, as Dagster's own queue reads our dagster.yaml: two that train or measure."""

from importlib.resources import files
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import create_test_daemon_workspace_context, instance_for_test, load_remote_repo
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon

from assets.definitions import defs
from assets.instance import limit_pools
from assets.partitions import POOL, STUDIES, WATCHED, run_key

OPD = STUDIES["tiny"].arms("core")[1]
LAUNCHER = {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"}  # takes a run and does nothing with it


@pytest.fixture
def queue():
    """A queue with our settings: submit(job, partition) and launched(), run ids after one look of the daemon."""
    ours = yaml.safe_load(files("assets").joinpath("dagster.yaml").read_text())
    silent = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    location = ModuleTarget("assets.definitions", None, None, "opd")
    with (
        instance_for_test(overrides=ours | {"run_launcher": LAUNCHER, "compute_logs": silent}) as instance,
        create_test_daemon_workspace_context(location, instance) as workspace,
        QueuedRunCoordinatorDaemon(interval_seconds=1) as daemon,
    ):
        limit_pools(instance)
        origins = {job.name: job for job in load_remote_repo(workspace, "__repository__").get_all_jobs()}

        def submit(name, partition):
            job = defs.resolve_job_def(name)
            run = instance.create_run_for_job(
                job,
                tags={"dagster/partition": partition},
                status=dg.DagsterRunStatus.NOT_STARTED,
                remote_job_origin=origins[name].get_remote_origin(),
                job_code_origin=origins[name].get_python_origin(),
            )
            instance.submit_run(run.run_id, workspace.create_request_context())
            return run.run_id

        def launched():
            problems = [error for error in daemon.run_iteration(workspace) if error]
            assert not problems
            launcher: Any = instance.run_launcher
            return [run.run_id for run in launcher.queue()]

        yield submit, launched, instance


def test_two_runs_train_or_measure_at_once_and_comparisons_do_not_wait_for_them(queue):
    submit, launched, instance = queue
    trained = [submit("runs", run_key(OPD.name, seed)) for seed in (0, 1, 2)]
    assert launched() == trained[:2]
    compared = submit("comparison", "tiny")
    assert launched() == [*trained[:2], compared]
    instance.report_run_canceled(instance.get_run_by_id(trained[0]))
    assert launched() == [*trained[:2], compared, trained[2]]
    limits = {limit.name: limit.limit for limit in instance.event_log_storage.get_pool_limits()}
    assert limits == {POOL: 2, WATCHED: 2}, "those that are watched wait for each other alone"
    assert {asset.op.pool for asset in defs.assets if isinstance(asset, dg.AssetsDefinition)} >= {POOL, WATCHED}
