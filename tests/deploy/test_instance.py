"""deploy/dagster.yaml as Dagster reads it: every part is built from the environment, and no secret leaves it."""

import re

import pytest
from dagster._core.instance.ref import InstanceRef

from tests.cluster_demo.dagster import command, home
from tests.deploy.conftest import DEPLOY

GIVEN = {
    "DAGSTER_PG_HOST": "db.example",
    "DAGSTER_PG_PORT": "5433",
    "DAGSTER_PG_DB": "dagster",
    "DAGSTER_PG_USERNAME": "dagster",
    "DAGSTER_PG_PASSWORD": "a secret of this test",
    "OPD_CONCURRENT_RUNS": "7",
    "OPD_LOGS_BUCKET": "a-bucket",
    "OPD_RAY_JOBS": "http://ray.example:8265",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture
def reference(tmp_path, monkeypatch) -> InstanceRef:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    return InstanceRef.from_dir(str(home(tmp_path / "home")))


def test_the_environment_of_this_test_is_all_that_is_asked_for():
    asked = re.findall(r"\{env: (\w+)\}", (DEPLOY / "dagster.yaml").read_text())
    assert set(asked) == set(GIVEN) - {"AWS_DEFAULT_REGION"}


def test_runs_are_launched_as_jobs_of_the_ray_cluster(reference):
    launcher = reference.run_launcher
    assert type(launcher).__name__ == "RayRunLauncher"
    assert (launcher.address, launcher.resources) == (GIVEN["OPD_RAY_JOBS"], {"run_worker": 1})
    assert reference.run_coordinator.get_run_queue_config().max_concurrent_runs == 7


def test_logs_go_to_the_object_store(reference):
    assert type(reference.compute_log_manager).__name__ == "S3ComputeLogManager"
    assert reference.compute_log_manager._s3_bucket == "a-bucket"


def test_what_a_job_is_told_of_the_instance_holds_no_secret(reference):
    """The reference stands in the command line of a run's job, where everyone on the cluster can read it."""
    told = str(reference.to_dict())
    assert "DAGSTER_PG_PASSWORD" in told
    assert GIVEN["DAGSTER_PG_PASSWORD"] not in told and GIVEN["DAGSTER_PG_HOST"] not in told


def test_a_lost_run_is_noticed_and_made_again(reference):
    settings = reference.settings
    assert settings["run_monitoring"]["enabled"] and settings["run_monitoring"]["poll_interval_seconds"] <= 30
    assert settings["run_retries"]["enabled"] and settings["run_retries"]["max_retries"] >= 1
    assert settings["telemetry"] == settings["nux"] == {"enabled": False}


def test_the_command_lines_of_the_compose_file_are_taken_word_by_word(tmp_path):
    ports = {"code-server": 1234, "webserver": 2345}
    words = command("webserver", ports, tmp_path)
    assert words[0].endswith("/python") and words[1:3] == ["-m", "assets.webserver"]
    assert words[3:] == ["-w", f"{tmp_path}/workspace.yaml", "-h", "127.0.0.1", "-p", "2345"]
    assert command("code-server", ports, tmp_path)[1:4] == ["api", "grpc", "-m"]
    assert "1234" in command("code-server", ports, tmp_path)
