"""Disks that are full or read-only: one in this process that refuses as a disk does, and real ones by `mount`.

`Disk` stands between a store and its files: what does not fit is written in part, as the kernel does, and then refused.
"""

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.store import objects


@dataclass
class Disk:
    """room: bytes that can still be written; None: as many as there are. broken: the error of every write, if any."""

    room: int | None = None
    broken: int = 0
    refused: int = 0

    def install(self, patch: pytest.MonkeyPatch) -> "Disk":
        """Every file that a store writes in this process from now on lies here."""
        patch.setattr(objects, "open", self._open, raising=False)
        return self

    @contextlib.contextmanager
    def _open(self, path: str, mode: str) -> Iterator["_File"]:
        if self.broken:
            self._refuse(self.broken, path)
        with open(path, mode) as file:
            yield _File(self, file, str(path))

    def _refuse(self, number: int, path: str) -> None:
        self.refused += 1
        raise OSError(number, os.strerror(number), path)


@dataclass
class _File:
    disk: Disk
    file: Any
    path: str

    def write(self, data: bytes) -> None:
        room = self.disk.room
        fits = data if room is None else data[:room]
        self.file.write(fits)
        if room is not None:
            self.disk.room = room - len(fits)
            if len(fits) < len(data):
                self.file.flush()
                self.disk._refuse(errno.ENOSPC, self.path)

    def flush(self) -> None:
        self.file.flush()

    def fileno(self) -> int:
        return self.file.fileno()


@contextlib.contextmanager
def mounted(folder: Path, kib: int) -> Iterator[Path]:
    """A real file system of so many KiB, in memory. Skips the test where nothing may be mounted."""
    folder.mkdir()
    size = ["-o", f"size={kib}k"]
    if not (mount := shutil.which("mount")):
        pytest.skip("no program `mount`")
    if subprocess.run([mount, "-t", "tmpfs", *size, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def read_only(folder: Path, yes: bool = True) -> None:
    """A mounted file system takes no writes any more, or takes them again."""
    subprocess.run(["mount", "-o", f"remount,{'ro' if yes else 'rw'}", str(folder)], check=True)
