"""`deploy/local/up` and `down`: one process group on loopback, ended whole, also after `up` itself was killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from deploy import processes
from tests.deploy.conftest import DEPLOY


class Local:
    """The two commands over a DAGSTER_HOME of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "dagster/up/up.json"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "RAY_"))}
        here = {"DAGSTER_HOME": str(folder / "dagster"), "OPD_STORE": str(folder / "store")}
        self.environment = inherited | here | {"OPD_PYTHON": sys.executable}

    def call(self, program: str, *words: str) -> subprocess.CompletedProcess:
        command = [str(DEPLOY / "local" / program), *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300)

    def record(self) -> dict:
        return json.loads(self.state.read_text())


@pytest.fixture
def local(tmp_path):
    found = Local(tmp_path)
    yield found
    if found.state.exists():
        found.call("down")


def group(number: int) -> dict[int, str]:
    """Processes of a group, and when they were born."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == number and fields[0] != "Z":
            found[int(entry.name)] = fields[19]
    return found


def listening(pids: set[int]) -> dict[str, set[int]]:
    """Addresses (of IPv4, as the kernel writes them) at which processes listen, and the ports there."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
            except OSError:
                continue
    found: dict[str, set[int]] = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            address, port = fields[1].split(":")
            found.setdefault(".".join(str(byte) for byte in reversed(bytes.fromhex(address))), set()).add(int(port, 16))
    return found


def test_up_is_one_group_on_loopback_and_down_ends_it_also_after_up_was_killed(local):
    port, ray_port = processes.free_ports(2)
    came = local.call("up", "--detach", "--cpus", "1", "--port", str(port), "--ray-port", str(ray_port))
    assert came.returncode == 0, came.stderr
    assert f"http://127.0.0.1:{port}" in came.stdout
    record = local.record()
    leader = record["started"]["ray"][0]
    members = group(leader)
    for headers, code in (({}, 401), ({"Authorization": "Bearer another"}, 403)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{ray_port}/api/jobs/", headers=headers))
        assert caught.value.code == code
    assert record["ready"] and {pid for pid, _ in record["started"].values()} <= set(members)
    assert leader != os.getpgrp()
    places = listening(set(members))
    assert {port, ray_port} <= places.pop("127.0.0.1")
    # Ray's exporter of metrics, one per agent, cannot be bound to an address.
    assert set(places) <= {"0.0.0.0"} and len(places.get("0.0.0.0", set())) <= 2

    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Origin": "http://127.0.0.1:1"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 403, "another page"

    again = local.call("up")
    assert again.returncode == 2 and f"it is up: http://127.0.0.1:{port}" in again.stderr
    assert local.record() == record

    os.kill(record["up"][0], signal.SIGKILL)  # what it started lives on, and is still known
    limit = time.monotonic() + 10
    while processes.alive(*record["up"]) and time.monotonic() < limit:
        time.sleep(0.1)
    ended = local.call("down")
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr
    assert processes.left(members, 5.0) == {}
    assert not local.state.exists()
    assert local.call("down").returncode == 2


def test_a_taken_port_is_refused_before_anything_starts(local):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = local.call("up", "--port", str(port))
    assert refused.returncode == 1
    assert refused.stderr == f"error: port {port} of 127.0.0.1 is taken; give another, or none for a free one\n"
    assert not local.state.exists()
