"""The environment of another program: packages of its own beside this project's, made once and known by their pins.

Its processes run one thread, offline, with the variables it adds to this process's own.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.runs.cluster.attach import THREADS
from tests.bench.catalog import say

ROOT = Path(__file__).resolve().parents[2]  # of the project, where environments are kept
TORCH = "torch>=2.13,<2.14"  # a later torch would be a CUDA build
QUIET = THREADS | {"MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class Absent(Exception):
    """A program cannot be run here; the message says why."""


@dataclass(frozen=True)
class Environment:
    """folder: of the virtual environment. packages: what pip is asked for. variables: further ones of its processes.

    version: of the Python it needs, such as 3.12; that of this process where it is empty.
    """

    folder: Path
    packages: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    version: str = ""

    @property
    def marker(self) -> Path:
        """What is written last: the packages that are there."""
        return self.folder / "installed.json"

    def python(self, install: bool) -> Path:
        """The environment's Python. Errors: Absent where it is missing and not to be installed, or cannot be."""
        return self.install() if install else self.interpreter()

    def interpreter(self) -> Path:
        """The environment's Python, as it is. Errors: Absent when `install` would have to make it."""
        if not self.marker.exists() or self.marker.read_text() != json.dumps(self.packages):
            raise Absent(f"not installed: {self.folder.name} is missing, a full bench makes it")
        return self.folder / "bin" / "python"

    def install(self) -> Path:
        """The environment's Python, made where it is missing or of other packages. Errors: Absent when it cannot."""
        try:
            return self.interpreter()
        except Absent:
            maker = find_interpreter(self.version)
            say(f"making {self.folder.name}, once, in some minutes: {', '.join(self.packages)}")
        python = self.folder / "bin" / "python"
        self.call([maker, "-m", "venv", "--clear", str(self.folder)], "not installed")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        self.call([*pip, *self.packages], "not installed")
        self.marker.write_text(json.dumps(self.packages))
        return python

    def call(self, command: Sequence[str], otherwise: str) -> None:
        """Run a process. Errors: Absent, `otherwise` and the last line it wrote."""
        try:
            done = subprocess.run(command, env=os.environ | QUIET | self.variables, capture_output=True, text=True)
        except OSError as error:
            raise Absent(f"{otherwise}: {error}") from None
        if done.returncode:
            lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
            raise Absent(f"{otherwise}: {lines[-1]}")


def find_interpreter(version: str) -> str:
    """A Python of this version, such as 3.12: this one or one on PATH; this one where it is empty.

    Errors: Absent where there is none.
    """
    if not version or version == ".".join(map(str, sys.version_info[:2])):
        return sys.executable
    for folder in os.get_exec_path():
        python = shutil.which(f"python{version}", path=folder)
        if python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:  # no shim of pyenv
            return python
    raise Absent(f"not installed: it needs Python {version}, and no python{version} is on PATH")
