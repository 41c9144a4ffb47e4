"""TRL's environment, `.venv-trl` in the project's root: made at first use, about two minutes and 1.4 GB.

Its transformers is this project's, so that both sides train the same model code. 5.23 was no clear
gain: 10 to 20 % either way in two runs on a busy machine.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pipelines.bench.peers import QUIET, THREADS, TORCH, Absent

FOLDER = Path(__file__).resolve().parents[3] / ".venv-trl"
PACKAGES = (TORCH, "trl==1.16.0", "transformers==5.19.0", "accelerate==1.15.0", "datasets==5.2.0")
ALONE = {"HF_HUB_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": ""}


def install(say: Callable[[str], None] = print, folder: Path = FOLDER) -> Path:
    """The interpreter of the environment, made where it is missing or of other packages; `say` is told before.

    Errors: Absent when it cannot be made.
    """
    try:
        return interpreter(folder)
    except Absent:
        say(f"making {folder.name} for TRL: {', '.join(PACKAGES)}; about two minutes, 1.4 GB")
    python = folder / "bin" / "python"
    call([sys.executable, "-m", "venv", "--clear", str(folder)], "not installed")
    call([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], "not installed")
    (folder / "installed.json").write_text(json.dumps(PACKAGES))
    return python


def interpreter(folder: Path = FOLDER) -> Path:
    """The interpreter of the environment as it is. Errors: Absent when `install` would have to make it."""
    marker = folder / "installed.json"
    if not marker.exists() or marker.read_text() != json.dumps(PACKAGES):
        raise Absent(f"not installed: {folder.name} is missing, a full bench makes it")
    return folder / "bin" / "python"


def call(command: list[str], otherwise: str) -> None:
    """Run a process of one thread on the CPU, offline. Errors: Absent, `otherwise` and the last line it wrote."""
    try:
        done = subprocess.run(
            command, env=os.environ | dict.fromkeys(THREADS, "1") | QUIET | ALONE, capture_output=True, text=True
        )
    except OSError as error:
        raise Absent(f"{otherwise}: {error}") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise Absent(f"{otherwise}: {said[-1]}")
