"""Dagster's UI listens on loopback, whatever port it finds, and ends with what it started."""

import os
import signal
import socket
import sys
import threading
import time
from contextlib import nullcontext

import pytest

from assets import ui

WAITS = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
ENDS = [sys.executable, "-S", "-c", "pass"]


@pytest.mark.parametrize("port", [None, "4321"])
def test_the_ui_listens_on_loopback(port, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(ui, "shared", lambda: nullcontext("local"))
    monkeypatch.setattr(ui, "run_services", lambda commands: seen.append(commands) or 0)
    for name, value in {"DAGSTER_HOME": tmp_path / "d", "OPD_STORE": tmp_path / "s", "RAY_ADDRESS": "local"}.items():
        monkeypatch.setenv(name, str(value))
    if port is None:
        monkeypatch.delenv("PORT", raising=False)
    else:
        monkeypatch.setenv("PORT", port)
    assert ui.main() == 0
    (commands,) = seen
    command = commands["webserver"]
    assert command[command.index("-h") + 1] == "127.0.0.1"
    assert port is None or command[command.index("-p") + 1] == port
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    assert os.environ["OPD_STORE"].startswith("file://")


def test_the_webserver_is_the_one_that_refuses_other_pages():
    assert ui.services(3000)["webserver"][1:3] == ["-m", "assets.webserver"]


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


def test_a_service_that_ends_by_itself_ends_the_others_and_is_named(handlers, capfd):
    begun = time.monotonic()
    assert ui.run_services({"webserver": WAITS, "daemon": ENDS}) == 1
    assert "error: the daemon ended by itself" in capfd.readouterr().err
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_services_and_is_no_failure(number, handlers):
    threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
    begun = time.monotonic()
    assert ui.run_services({"webserver": WAITS, "daemon": WAITS}) == 0
    assert time.monotonic() - begun < 30


def test_a_port_that_is_taken_on_loopback_gives_way():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]
        assert ui.free_port(wanted) != wanted
