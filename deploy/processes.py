"""Processes that were started here: each in a group of its own or in a shared one, and all of them ended by their ids.

Nothing is looked for by its name: other people's Ray and Dagster on this machine are none of our business.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

GRACE = 15.0  # seconds from SIGTERM to SIGKILL


def start(
    command: Sequence[str | Path],
    log: Path,
    environment: Mapping[str, str],
    *,
    group: int = 0,
    folder: Path | None = None,
    user: int | None = None,
) -> subprocess.Popen[bytes]:
    """A process in `group` (0: its own), with its output in `log`, as `user` if one is given."""
    with open(log, "ab") as out:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            process_group=group,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            # What a shell starts in the background ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def born(pid: int) -> str:
    """When a process started, in ticks; empty when there is none, since its number may be another's one day."""
    return stat(pid).get("born", "")


def alive(pid: int, birth: str) -> bool:
    """Whether a process is still the one that it was, and not a dead one that nobody has asked about."""
    found = stat(pid)
    return found.get("born") == birth and found["state"] != "Z"


def descendants(roots: Iterable[int]) -> dict[int, str]:
    """Process ids and births of all that `roots` started, and what those started, `roots` themselves included."""
    children: dict[int, list[tuple[int, str]]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := stat(int(entry.name))) and found["state"] != "Z":
            children.setdefault(int(found["parent"]), []).append((int(entry.name), found["born"]))
    known = {pid: born(pid) for pid in roots if born(pid)}
    front = list(known)
    while front:
        following = [child for pid in front for child in children.get(pid, []) if child[0] not in known]
        known.update(following)
        front = [pid for pid, _ in following]
    return known


def kill(processes: Mapping[int, str]) -> int:
    """kill -9 to each that is still the one it was; returns how many there were."""
    return _send(processes, signal.SIGKILL)


def stop(processes: Sequence[subprocess.Popen[bytes]], number: int = signal.SIGTERM, grace: float = GRACE) -> None:
    """Ask each to end, in this order, and then end whatever they left behind."""
    known = descendants(process.pid for process in processes)
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finish(known, 3.0)


def finish(processes: Mapping[int, str], grace: float) -> int:
    """Wait for processes to end, then ask (SIGTERM), then kill; returns how many were killed."""
    if found := left(processes, grace):
        _send(found, signal.SIGTERM)
        found = left(found, grace)
    return kill(found)


def left(processes: Mapping[int, str], within: float) -> dict[int, str]:
    """Those that still live after `within` seconds."""
    end = time.monotonic() + within
    while found := {pid: birth for pid, birth in processes.items() if alive(pid, birth)}:
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    return found


def free_ports(count: int) -> list[int]:
    """Different free ports on loopback."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def _send(processes: Mapping[int, str], number: int) -> int:
    sent = 0
    for pid, birth in processes.items():
        if alive(pid, birth):
            try:
                os.kill(pid, number)
                sent += 1
            except ProcessLookupError:
                continue
    return sent


def stat(pid: int) -> dict[str, str]:
    """Of a process that is there: its state, its parent, and when it was born."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return {}
    return {"state": fields[0], "parent": fields[1], "born": fields[19]}
