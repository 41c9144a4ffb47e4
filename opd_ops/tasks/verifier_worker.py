"""The process that runs checks for `verifier_process.py`, until its pipe closes.

Run as `python -m opd_ops.tasks.verifier_worker MODULE_OR_FILE DESCRIPTOR`. Messages are JSON: `{"ready": true}` after
the import; then for each check, which has `function`, `response`, `arguments` and `seconds`, `{"reward": r}` or
`{"error": "..."}`. The parent reads JSON and not pickles, which could run code there.

The kernel keeps the time here too: SIGALRM ends the process inside a computation that holds the interpreter lock, so
that nothing outlives a parent that was killed. An audit hook forbids checks to write files, open connections and start
processes: no verifier has a reason to. It is a second fence; the first is that no verifier executes model output.
"""

import json
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from opd_ops.outside import load_module
from opd_ops.tasks.task import Check

MEMORY = 8 << 30  # bytes of address space
GRACE = 2.0  # seconds beyond the limit, in which the parent ends this process itself

_FORBIDDEN = ("subprocess.", "socket.", "shutil.", "ctypes.", "os.system", "os.exec", "os.fork", "os.posix_spawn")
_FORBIDDEN_FILES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then closes the pipe
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    memory = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with Connection(int(sys.argv[2])) as connection:
        reply: dict[str, Any] = {"ready": True}
        try:
            load_module(sys.argv[1])
        except Exception as error:
            reply = _describe_error(error)
        sys.addaudithook(_forbid_side_effects)
        while True:
            try:
                connection.send_bytes(json.dumps(reply).encode())
                request = connection.recv_bytes()
            except (EOFError, OSError):  # the parent is gone
                return
            reply = _run_check(request)


def _forbid_side_effects(event: str, args: tuple[Any, ...]) -> None:
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event.startswith((*_FORBIDDEN, *_FORBIDDEN_FILES)):
        raise PermissionError(f"a verifier may not {event} {str(args[:1])[:80]}")


def _run_check(data: bytes) -> dict[str, Any]:
    request = json.loads(data)
    signal.setitimer(signal.ITIMER_REAL, request.pop("seconds") + GRACE)
    try:
        return {"reward": Check(**request).run()}
    except Exception as error:
        return _describe_error(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _describe_error(error: Exception) -> dict[str, Any]:
    return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


if __name__ == "__main__":
    main()
