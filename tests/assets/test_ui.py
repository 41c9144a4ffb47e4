"""Dagster's UI listens on loopback, whatever port it finds."""

import os
import socket
from contextlib import nullcontext

import pytest

from assets import ui


class Server:
    """A process that ends at once."""

    pid = 0

    def __init__(self, command, **_):
        self.command = command

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def wait(self):
        return 0


@pytest.mark.parametrize("port", [None, "4321"])
def test_the_ui_listens_on_loopback(port, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(ui, "shared", lambda: nullcontext("local"))
    monkeypatch.setattr(ui.subprocess, "Popen", lambda command, **how: seen.append(Server(command, **how)) or seen[-1])
    monkeypatch.setattr(ui.signal, "signal", lambda *_: None)
    for name, value in {"DAGSTER_HOME": tmp_path / "d", "OPD_STORE": tmp_path / "s", "RAY_ADDRESS": "local"}.items():
        monkeypatch.setenv(name, str(value))
    if port is None:
        monkeypatch.delenv("PORT", raising=False)
    else:
        monkeypatch.setenv("PORT", port)
    assert ui.main() == 0
    (server,) = seen
    assert server.command[server.command.index("-h") + 1] == "127.0.0.1"
    assert port is None or server.command[server.command.index("-p") + 1] == port
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    assert os.environ["OPD_STORE"].startswith("file://")


def test_a_port_that_is_taken_on_loopback_gives_way():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]
        assert ui.free_port(wanted) != wanted
