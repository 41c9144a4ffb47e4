"""A process of its own for checks that may hang: it runs one check at a time, and is killed when that takes too long.

A plain subprocess and not `multiprocessing`: a daemonic process may start it, a script needs no main guard for it, and
its hash seed is fixed, so that sets iterate alike in every run. It ends when this process does: its pipe closes.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from multiprocessing import Pipe

from opd_ops.tasks.task import Check

START_SECONDS = 120.0  # to import the verifier
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class LimitExceeded(Exception):
    """The check took longer or needed more memory than it may, or crashed its process twice."""


class CheckFailed(Exception):
    """The verifier raised, cannot be imported, or ended its own process twice."""


class VerifierProcess:
    """Runs checks in a process that starts with the first of them, and again after it ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, check: Check, seconds: float) -> float:
        """The reward. Errors: LimitExceeded, CheckFailed; their messages go on from "the verifier "."""
        request = json.dumps({**asdict(check), "seconds": seconds}).encode()
        for restart in (True, False):
            process = self.process or self._start(check.function.rpartition(":")[0])
            try:
                self._connection.send_bytes(request)
                reply = self._receive(seconds)
            except (EOFError, OSError):
                status = process.wait()
                self.close()
                if restart:
                    continue
                kind = LimitExceeded if status < 0 else CheckFailed
                raise kind(f"failed: its process ended with status {status}") from None
            if reply is None:
                self.close()
                raise LimitExceeded(f"took longer than {seconds:g} s")
            if "reward" in reply:
                return float(reply["reward"])  # type: ignore[arg-type]
            kind = LimitExceeded if str(reply["error"]).startswith("MemoryError") else CheckFailed
            raise kind(f"raised {reply['error']}")
        raise AssertionError

    def close(self) -> None:
        """Kill the process; the next check starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self._connection.close()
            self.process = None

    def _start(self, module: str) -> subprocess.Popen[bytes]:
        self._connection, other = Pipe()
        path = os.pathsep.join(entry for entry in sys.path if entry)
        with other:
            descriptor = other.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "opd_ops.tasks.verifier_worker", module, str(descriptor)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # what a verifier prints is nobody's
                env=os.environ | ENVIRONMENT | {"PYTHONPATH": path},
                pass_fds=[descriptor],
            )
        process = self.process
        try:
            reply = self._receive(START_SECONDS)
        except (EOFError, OSError):
            reply = {"error": f"its process ended with status {process.wait()}"}
        if reply is None:
            reply = {"error": f"it did not import {module} within {START_SECONDS:g} s"}
        if "error" in reply:
            self.close()
            raise CheckFailed(f"failed: {reply['error']}")
        return process

    def _receive(self, seconds: float) -> dict[str, object] | None:
        """The next reply; None after `seconds`. Errors: EOFError or OSError where the process ended."""
        return json.loads(self._connection.recv_bytes()) if self._connection.poll(seconds) else None
