"""`deploy/local/up`: Ray with its dashboard and Dagster on loopback, ended whole by one signal."""

import os
import signal
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest

from tests import processes
from tests.deploy.conftest import DEPLOY


@pytest.fixture
def start(tmp_path):
    """start(PORT=...): `up` over a DAGSTER_HOME of the test's own."""
    started = []

    def run(**more: str):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "RAY_"))}
        here = {"DAGSTER_HOME": str(tmp_path / "dagster"), "OPD_STORE": str(tmp_path / "store")}
        environment = inherited | here | {"OPD_PYTHON": sys.executable, "RAY_CPUS": "1"} | more
        started.append(processes.start([DEPLOY / "local/up"], tmp_path / "log", environment))
        return started[-1]

    yield run
    processes.stop(started)


def status(page: str, **headers: str) -> int:
    """The status of an answer; 0 where nothing listens."""
    try:
        with urllib.request.urlopen(urllib.request.Request(page, headers=headers), timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_ray_and_dagster_are_up_on_loopback_and_one_signal_ends_them(start, tmp_path):
    port, ray_port = processes.free_ports(2)
    up = start(PORT=str(port), RAY_DASHBOARD_PORT=str(ray_port))
    limit = time.monotonic() + 180
    jobs = f"http://127.0.0.1:{ray_port}/api/jobs/"
    while status(f"http://127.0.0.1:{port}/server_info") != 200 or not status(jobs):
        assert up.poll() is None and time.monotonic() < limit, (tmp_path / "log").read_text()
        time.sleep(0.3)
    assert (status(jobs), status(jobs, Authorization="Bearer another")) == (401, 403)
    assert status(f"http://127.0.0.1:{port}/", Origin="http://127.0.0.1:1") == 403, "another page"
    family = processes.list_family([up.pid])
    listening = {
        connection.laddr
        for process in family
        for connection in process.net_connections("tcp4")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {port, ray_port} <= {place.port for place in listening if place.ip == "127.0.0.1"}
    # Ray's exporter of metrics, one per agent, cannot be bound to an address.
    others = [place for place in listening if place.ip != "127.0.0.1"]
    assert len(others) <= 2 and {place.ip for place in others} <= {"0.0.0.0"}
    up.send_signal(signal.SIGTERM)
    assert up.wait(120) == 0, (tmp_path / "log").read_text()
    assert processes.wait_for_end(family, 10.0) == []


def test_a_taken_port_is_refused(start, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert start(PORT=str(port)).wait(120) == 2
    assert f"error: port {port} is taken; give another: opd ui --port " in (tmp_path / "log").read_text()
