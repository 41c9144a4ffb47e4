"""Processes of this machine, as /proc tells of them: who descends from whom, and what each is called."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.processes import stat


@dataclass(frozen=True)
class Process:
    """One process. born: when it started, in ticks, since its number may be another's one day."""

    pid: int
    born: str

    @property
    def title(self) -> str:
        """What it calls itself; empty when it is gone."""
        if stat(self.pid).get("born") != self.born:
            return ""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""

    def kill(self) -> bool:
        """kill -9; False when there was nothing to kill."""
        if not self.title:
            return False
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


def process(pid: int) -> Process:
    """The process that has this number now."""
    return Process(pid, stat(pid).get("born", ""))


def descendants(root: Process) -> list[Process]:
    """All that a process started, and what those started, the nearest first."""
    children: dict[int, list[Process]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := stat(int(entry.name))) and found["state"] != "Z":
            children.setdefault(int(found["parent"]), []).append(Process(int(entry.name), found["born"]))
    found, front = [], [root]
    while front:
        front = [child for one in front for child in children.get(one.pid, [])]
        found += front
    return found


def left(of: list[Process], within: float) -> list[Process]:
    """Those that still live after `within` seconds."""
    end = time.monotonic() + within
    while (found := [one for one in of if one.title]) and time.monotonic() < end:
        time.sleep(0.1)
    return found
