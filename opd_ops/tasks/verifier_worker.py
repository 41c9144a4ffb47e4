"""The process that carries out checks for `helper.py`: one JSON line in, one out, until its input closes.

Run as `python -m opd_ops.tasks.verifier_worker MODULE_OR_FILE`; the line `{"ready": true}` follows its import.
A check has `function`, `response`, `arguments` and `seconds`; the answer is `{"reward": r}` or `{"error": "..."}`.

Time is kept by the kernel here too: SIGALRM ends the process inside a computation that holds the interpreter, so that
nothing outlives a parent that died. From the first check on it writes no file, opens no connection and starts no
process: no verifier has a reason to. That is a second fence; the first is that no verifier executes model output.
"""

import json
import os
import resource
import signal
import sys
from typing import Any

from opd_ops.outside import load_module
from opd_ops.tasks.task import Check

MEMORY = 8 << 30  # bytes of address space
GRACE = 2.0  # seconds beyond the limit, in which the parent ends this process itself

_FORBIDDEN = ("subprocess.", "socket.", "shutil.", "ctypes.", "os.system", "os.exec", "os.fork", "os.posix_spawn")
_FORBIDDEN_FILES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")


def _fence(event: str, args: tuple[Any, ...]) -> None:
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event.startswith((*_FORBIDDEN, *_FORBIDDEN_FILES)):
        raise PermissionError(f"a verifier may not {event} {str(args[:1])[:80]}")


def _answer(line: bytes) -> dict[str, Any]:
    request = json.loads(line)
    seconds = request.pop("seconds")
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)
    try:
        return {"reward": Check(**request).run()}
    except Exception as error:
        return {"error": _described(error)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then closes the input
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    memory = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a verifier prints is no reply
    try:
        load_module(sys.argv[1])
    except Exception as error:
        replies.write(json.dumps({"error": _described(error)}).encode() + b"\n")
        return
    replies.write(b'{"ready": true}\n')
    sys.addaudithook(_fence)
    for line in sys.stdin.buffer:
        replies.write(json.dumps(_answer(line)).encode() + b"\n")


if __name__ == "__main__":
    main()
