"""Dagster's UI listens on loopback, whatever port it finds, and ends with what it started."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import nullcontext
from urllib.parse import urlsplit

import pytest

from assets import ui

WAITS = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
NOWHERE = "http://127.0.0.1:1"


@pytest.mark.parametrize("port", [None, "4321"])
def test_the_ui_listens_on_loopback(port, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(ui, "share_ray", lambda: nullcontext("local"))
    monkeypatch.setattr(ui, "run_services", lambda *said: seen.append(said) or 0)
    for name, value in {"DAGSTER_HOME": tmp_path / "d", "OPD_STORE": tmp_path / "s", "RAY_ADDRESS": "local"}.items():
        monkeypatch.setenv(name, str(value))
    if port is None:
        monkeypatch.delenv("PORT", raising=False)
    else:
        monkeypatch.setenv("PORT", port)
    assert ui.main() == 0
    ((commands, address, line),) = seen
    command = commands["webserver"]
    assert command[command.index("-h") + 1] == "127.0.0.1"
    assert port is None or command[command.index("-p") + 1] == port
    assert address == f"http://127.0.0.1:{command[command.index('-p') + 1]}" and line.startswith(address)
    assert capsys.readouterr().out == "", "the address is printed once it answers"
    assert os.environ["OPD_STORE"].startswith("file://")


def test_the_webserver_is_the_one_that_refuses_other_pages():
    assert ui.services(3000)["webserver"][1:4] == ["-P", "-m", "assets.webserver"]


def test_a_setting_that_names_no_host_is_one_line(tmp_path, monkeypatch, capsys):
    for name, value in {"DAGSTER_HOME": tmp_path / "d", "OPD_STORE": tmp_path / "s", "OPD_HOSTS": "*"}.items():
        monkeypatch.setenv(name, str(value))
    assert ui.main() == 2
    line = "error: OPD_HOSTS names '*', which is no host; give names, as in OPD_HOSTS=a.example,b.example\n"
    assert capsys.readouterr().err == line


@pytest.fixture
def handlers():
    """The signal handlers, as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("ends", "code"), [("pass", 1), ("raise SystemExit(2)", 2), ("os.abort()", 128 + signal.SIGABRT)]
)
def test_a_service_that_ends_by_itself_ends_the_others_and_gives_its_code(ends, code, handlers, capfd):
    begun = time.monotonic()
    command = [sys.executable, "-S", "-c", f"import os; {ends}"]
    assert ui.run_services({"webserver": WAITS, "daemon": command}, NOWHERE, "up") == code
    shown = capfd.readouterr()
    assert "error: the daemon ended by itself" in shown.err and shown.out == ""
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_services_and_is_no_failure(number, handlers):
    threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
    begun = time.monotonic()
    assert ui.run_services({"webserver": WAITS, "daemon": WAITS}, NOWHERE, "up") == 0
    assert time.monotonic() - begun < 30


def test_the_address_is_printed_once_the_server_answers(webserver, handlers, capsys):
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert ui.run_services({"webserver": WAITS}, webserver, "up") == 0
    assert capsys.readouterr().out == "up\n"


def test_the_first_page_is_the_graph(webserver):
    with urllib.request.urlopen(webserver) as answer:
        assert urlsplit(answer.url).path == "/asset-groups"


def test_without_a_workspace_file_as_in_a_wheel_the_module_is_served(tmp_path, monkeypatch):
    assert "workspace.yaml" in " ".join(ui.services(3000)["daemon"])
    monkeypatch.setattr(ui, "WORKSPACE", tmp_path / "workspace.yaml")
    for command in ui.services(3000).values():
        assert command[command.index("-m", 4) :][:2] == ["-m", "assets.definitions"]


def test_opd_ui_becomes_the_server_and_ends_with_its_code(tmp_path):
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path / "d"), "OPD_STORE": str(tmp_path / "s"), "OPD_HOSTS": "*"}
    for arguments, said in (([], "error: OPD_HOSTS names '*'"), (["--port", "0"], "error: --port 0 is no port")):
        command = [sys.executable, "-m", "pipelines.cli", "ui", *arguments]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ended.returncode == 2 and ended.stderr.startswith(said) and ended.stderr.count("\n") == 1


def test_a_port_that_is_taken_on_loopback_gives_way():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]
        assert ui.free_port(wanted) != wanted
