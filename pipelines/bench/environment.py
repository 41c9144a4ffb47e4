"""The environment of another program: packages of its own beside this project's, made once and known by their pins.

Its processes run one thread, offline, with the variables it adds to this process's own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.runs.cluster.attach import THREADS

ROOT = Path(__file__).resolve().parents[2]  # of the project, where environments are kept
TORCH = "torch>=2.13,<2.14"  # a later torch would be a CUDA build
QUIET = THREADS | {"MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class Absent(Exception):
    """A program cannot be run here; the message says why."""


@dataclass(frozen=True)
class Environment:
    """folder: of the virtual environment. packages: what pip is asked for. variables: further ones of its processes."""

    folder: Path
    packages: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def marker(self) -> Path:
        """What is written last: the packages that are there."""
        return self.folder / "installed.json"

    def interpreter(self) -> Path:
        """The environment's Python, as it is. Errors: Absent when `install` would have to make it."""
        if not self.marker.exists() or self.marker.read_text() != json.dumps(self.packages):
            raise Absent(f"not installed: {self.folder.name} is missing, a full bench makes it")
        return self.folder / "bin" / "python"

    def install(self, say: Callable[[str], None] = print) -> Path:
        """The environment's Python, made where it is missing or of other packages; `say` is told before.

        Errors: Absent when it cannot be made.
        """
        try:
            return self.interpreter()
        except Absent:
            say(f"making {self.folder.name}, once, in some minutes: {', '.join(self.packages)}")
        python = self.folder / "bin" / "python"
        self.call([sys.executable, "-m", "venv", "--clear", str(self.folder)], "not installed")
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
            said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
            raise Absent(f"{otherwise}: {said[-1]}")
