"""Every reader survives damage (`tests/fuzz/__main__.py`). OPD_FUZZ=SECONDS goes on with further seeds for so long."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def fuzz(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=1800
    )
    return done.returncode, done.stdout, done.stderr


def test_damage_is_read_rightly_or_refused_in_one_line_and_takes_neither_time_nor_memory():
    """In a process of its own: a crash or a hang ends that one."""
    more = ("--seconds", os.environ["OPD_FUZZ"]) if os.environ.get("OPD_FUZZ") else ()
    code, out, err = fuzz(*more)
    assert code == 0, f"exit {code}\n{out}\n{err[-3000:]}"
    assert "0 failures" in out
    print(out)
