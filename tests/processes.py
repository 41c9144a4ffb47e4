"""Processes that are started here, each in a group of its own, and ended by their ids with all that they started.

Nothing is looked for by its name: other people's Ray and Dagster on this machine are none of our business.
"""

import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

GRACE = 15.0  # seconds from a signal to SIGKILL


def start(
    command: Sequence[str | Path],
    log: Path,
    environment: Mapping[str, str],
    *,
    folder: Path | None = None,
    user: int | None = None,
) -> subprocess.Popen[bytes]:
    """A process with its output in `log`, as `user` where one is named."""
    with open(log, "ab") as out:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            process_group=0,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            # What a shell starts in the background ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def list_family(pids: Iterable[int]) -> list[psutil.Process]:
    """The processes of these ids that live, and all that they started, and what those started."""
    family = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            family += [process, *process.children(recursive=True)]
    return wait_for_end(family, 0.0)


def command_line(process: psutil.Process) -> str:
    """What a process calls itself; empty when it is gone."""
    with suppress(psutil.Error):
        if process.is_running():
            return " ".join(process.cmdline()).strip()
    return ""


def kill(processes: Iterable[psutil.Process]) -> int:
    """kill -9 to each that still lives; returns how many there were."""
    killed = 0
    for process in wait_for_end(processes, 0.0):
        with suppress(psutil.NoSuchProcess):
            process.kill()
            killed += 1
    return killed


def stop(processes: Sequence[subprocess.Popen[bytes]], number: int = signal.SIGTERM, grace: float = GRACE) -> None:
    """Ask each to end, in this order, and kill whatever they left behind."""
    family = list_family(process.pid for process in processes)
    for process in processes:
        process.send_signal(number)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    kill(wait_for_end(family, min(grace, 3.0)))


def wait_for_end(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still live after `seconds`; a process that nobody waits for (a zombie) does not."""
    end = time.monotonic() + seconds
    while living := [process for process in processes if _lives(process)]:
        if time.monotonic() >= end:
            break
        time.sleep(0.1)
    return living


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


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
