"""A process of its own for checks that may hang: asked one at a time, ended when it takes too long.

A plain subprocess over pipes, since a daemonic process may have no multiprocessing children. It ends when this process
does: its input closes.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from dataclasses import asdict

from opd_ops.tasks.task import Check

STARTING = 120.0  # seconds to import the verifier


class Overtime(Exception):
    """The check took longer than its limit; its process was ended."""


class Died(Exception):
    """The process ended by itself. The message says how."""


class Killed(Died):
    """A signal ended the process: memory ran out, or a library crashed."""


class Helper:
    """The process for the checks of one module or file. Errors, on starting: Died where it cannot be imported."""

    def __init__(self, module: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "opd_ops.tasks.verifier_worker", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
        )
        try:
            reply = self._read(STARTING)
        except Overtime:
            raise Died(f"it did not import {module} within {STARTING:g} s") from None
        if "error" in reply:
            self.close()
            raise Died(str(reply["error"]))

    def ask(self, check: Check, seconds: float) -> dict[str, object]:
        """`{"reward": r}`, or `{"error": "..."}` where the verifier raised. Errors: Overtime, Died."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({**asdict(check), "seconds": seconds}).encode() + b"\n")
        except OSError:
            raise self._died() from None
        return self._read(seconds)

    def close(self) -> None:
        """End the process, at once."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self, seconds: float) -> dict[str, object]:
        assert self.process.stdout is not None
        deadline, line = time.monotonic() + seconds, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.close()
                    raise Overtime
                piece = self.process.stdout.read(65536)
                if not piece:
                    raise self._died()
                line += piece
        return json.loads(line)

    def _died(self) -> Died:
        status = self.process.wait()
        self.close()
        return (Killed if status < 0 else Died)(f"its process ended with status {status}")
