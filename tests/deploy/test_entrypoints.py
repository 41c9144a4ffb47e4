"""The command lines of compose.yaml, started as containers would: Postgres, code server, webserver, daemon, proxy."""

import base64
import http.server
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import processes
from tests.cluster_demo import postgres
from tests.cluster_demo.dagster import SERVICES, Dagster
from tests.deploy.conftest import DEPLOY

BIN = Path(sys.executable).parent
PASSWORD, TOKEN = "a password of this test", "t" * 40


@pytest.fixture(scope="module")
def dagster(tmp_path_factory):
    """The three services over a Postgres, up."""
    folder = tmp_path_factory.mktemp("dagster")
    with postgres.running() as database:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "RAY_"))}
        given = database | {
            "OPD_STORE": f"file://{folder}/store",
            "OPD_LOGS_BUCKET": "opd",
            "OPD_RAY_JOBS": "http://127.0.0.1:1",
            "OPD_CONCURRENT_RUNS": "2",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        running = Dagster(folder, inherited | given | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"})
        try:
            running.start()
            yield running
        finally:
            family = processes.list_family(process.pid for process in running.running.values())
            running.stop()
            assert processes.wait_for_end(family, 5.0) == []


def check(service: str, compose: dict, dagster: Dagster) -> subprocess.CompletedProcess:
    """The service's own health check, on the ports of this test."""
    _, *words = compose["services"][service]["healthcheck"]["test"]
    other = {"4000": str(dagster.ports["code-server"]), "python": sys.executable}
    words = [other.get(word, word).replace(":3000/", f":{dagster.ports['webserver']}/") for word in words]
    environment = dict(dagster.environment) | dagster.variables
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)


def test_the_services_come_up_healthy_over_postgres(dagster, compose):
    for service in SERVICES:
        limit = time.monotonic() + 120  # the daemon's first heartbeats take their time
        while (seen := check(service, compose, dagster)).returncode and time.monotonic() < limit:
            time.sleep(1)
        assert seen.returncode == 0, (service, seen.stdout, seen.stderr)


def test_the_code_server_serves_the_assets_and_the_instance_is_ours(dagster):
    nodes = dagster.ask("{ assetNodes { assetKey { path } } }", {})["assetNodes"]
    assert {"trajectory", "rotation", "verdicts"} <= {node["assetKey"]["path"][-1] for node in nodes}
    instance = dagster.ask("{ instance { info runLauncher { name } runQueuingSupported } }", {})["instance"]
    assert instance["runLauncher"]["name"] == "RayRunLauncher" and instance["runQueuingSupported"]
    info = yaml.safe_load(instance["info"])
    assert "Postgres" in str(info["run_storage"]) and info["run_retries"] == {"enabled": True, "max_retries": 2}
    assert dagster.environment["DAGSTER_PG_PASSWORD"] not in instance["info"]


def test_the_webserver_refuses_other_pages(dagster):
    request = urllib.request.Request(
        f"http://127.0.0.1:{dagster.ports['webserver']}/", headers={"Host": "evil.example"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 403 and b"set OPD_HOSTS=evil.example" in refused.value.read()


def test_a_run_that_cannot_be_launched_says_so(dagster):
    """There is no Ray at the address: the queue takes the run, the launcher fails, and the run ends with the reason."""
    run = dagster.launch("comparison", ["verdicts"], {"dagster/partition": "tiny", "dagster/max_retries": "0"})
    limit = time.monotonic() + 90
    while not (found := [one for one in dagster.runs() if one["runId"] == run and one["status"] == "FAILURE"]):
        assert time.monotonic() < limit
        time.sleep(0.5)
    assert found[0]["tags"]["dagster/partition"] == "tiny"
    assert any("http://127.0.0.1:1" in words for words in dagster.messages(run)), dagster.messages(run)


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers with the Authorization it was given."""

    server: Any

    def do_GET(self) -> None:
        body = f"{self.server.server_name} {self.headers.get('Authorization')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, compose):
    """get(which, password, headers): status and body through the proxy, started by its own command line."""
    folder = tmp_path_factory.mktemp("proxy")
    behind = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) for _ in range(2)]
    for server in behind:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ports = dict(zip(("DAGSTER", "RAY", "HEALTH"), processes.free_ports(3), strict=True))
    given = {f"OPD_{name}_LISTEN": str(port) for name, port in ports.items()}
    given |= {
        f"OPD_{n}_UPSTREAM": f"127.0.0.1:{s.server_port}" for n, s in zip(("DAGSTER", "RAY"), behind, strict=True)
    }
    given |= {
        "OPD_HOSTS": "ui.example,10.0.0.7",
        "OPD_USER": "opd",
        "OPD_PASSWORD": PASSWORD,
        "RAY_AUTH_TOKEN": TOKEN,
        "HOME": str(folder),
    }
    words = [word.replace("$$", "$") for word in compose["services"]["proxy"]["command"]]
    words[-1] = words[-1].replace("/etc/caddy/Caddyfile", str(DEPLOY / "compose/Caddyfile"))
    running = processes.start(words, folder / "log", given | {"PATH": f"{BIN}{os.pathsep}{os.defpath}"}, folder=folder)

    def get(which: str, password: str | None = None, **headers: str) -> tuple[int, str]:
        names = {name.replace("_", "-"): value.format(port=ports[which]) for name, value in headers.items()}
        request = urllib.request.Request(f"http://127.0.0.1:{ports[which]}/", headers=names)
        if password is not None:
            request.add_header("Authorization", "Basic " + base64.b64encode(f"opd:{password}".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    limit = time.monotonic() + 60
    while not processes.answers(ports["HEALTH"]):
        assert running.poll() is None and time.monotonic() < limit, (folder / "log").read_text()
        time.sleep(0.1)
    yield get
    processes.stop([running])
    for server in behind:
        server.shutdown()


@pytest.mark.parametrize("which", ["DAGSTER", "RAY"])
def test_the_proxy_lets_nobody_in_without_the_password(proxy, which):
    assert proxy(which)[0] == proxy(which, "wrong")[0] == 401
    assert proxy(which, PASSWORD)[0] == 200


def test_the_proxy_adds_rays_token_and_keeps_the_password_to_itself(proxy):
    assert proxy("RAY", PASSWORD)[1].endswith(f"Bearer {TOKEN}")
    assert proxy("DAGSTER", PASSWORD)[1].endswith("None")
    assert proxy("HEALTH")[0] == 200


LINK = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}


@pytest.mark.parametrize("which", ["DAGSTER", "RAY"])
@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"Origin": "http://127.0.0.1:{port}", "Sec_Fetch_Site": "same-origin"}, True),
        ({"Host": "localhost:{port}", "Origin": "https://localhost:{port}"}, True),
        ({"Host": "[::1]:{port}"}, True),
        ({"Host": "ui.example", "Origin": "https://ui.example"}, True),
        ({"Host": "10.0.0.7:8080"}, True),
        (LINK, True),
        (LINK | {"Sec_Fetch_Dest": "iframe"}, False),
        ({"Sec_Fetch_Site": "same-site"}, False),
        ({"Host": "evil.example"}, False),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({"Origin": "http://localhost:{port}"}, False),
        ({"Origin": "null"}, False),
    ],
)
def test_the_proxy_refuses_other_pages_though_the_browser_sends_the_password(proxy, which, headers, passes):
    status, text = proxy(which, PASSWORD, **headers)
    assert status == (200 if passes else 403)
    assert passes or (text.startswith("error: ") and text.count("\n") == 1)
    assert proxy(which, **headers)[0] == (401 if passes else 403)
