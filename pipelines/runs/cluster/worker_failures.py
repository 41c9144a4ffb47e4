"""Workers that fail: which errors mean it, whether memory was the cause, and one line about it for the user.

Ray's memory monitor kills workers of a node that is nearly full: the newest first, several at once if need be,
whoever holds the memory. So a worker that it killed did nothing wrong, and its task is repeated with more memory.
"""

import errno
import logging
import re
import signal

from pipelines.runs.cluster import free_memory

RETRIES = 3  # of a call whose worker failed
log = logging.getLogger("opd")
# In the words of torch, the dynamic loader, Python and Polars.
_ALLOCATION = re.compile(
    r"(?i)can.?t allocate memory|cannot allocate memory|failed to map segment|n.t (start|spawn) .*thread"
)
_USED = re.compile(r"was ([\d.]+ ?GB used / [\d.]+ ?GB) limit")


class WorkerFailed(RuntimeError):
    """A worker failed at the same call again and again, or never started."""


class ProcessDied(RuntimeError):
    """A process without Ray died. code: its exit code, or minus the number of the signal; None where unknown."""

    def __init__(self, code: int | None) -> None:
        self.killed = code == -signal.SIGKILL  # by the system, when memory is short
        words = "killed, as the system does where memory is short" if self.killed else f"ended with exit code {code}"
        super().__init__(words)


def worker_failure_types() -> tuple[type[Exception], ...]:
    """What Ray raises when an actor, its node or its result is gone."""
    from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError

    return RayActorError, ObjectLostError, OutOfMemoryError, NodeDiedError, WorkerCrashedError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was the cause: Ray's memory monitor killed the worker, or an allocation failed."""
    import sys

    if isinstance(error, ProcessDied):
        return error.killed
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if _ALLOCATION.search(str(error)):
        return True
    if (torch := sys.modules.get("torch")) is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    if (ray := sys.modules.get("ray")) is None:
        return False
    return isinstance(error, ray.exceptions.OutOfMemoryError) or (
        isinstance(error, ray.exceptions.RayActorError) and "running low on memory" in str(error)
    )


def describe_failure(error: Exception) -> str:
    """Why a worker failed, in one line."""
    if isinstance(error, ProcessDied):
        return str(error)
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    if is_out_of_memory(error):
        used = _USED.search(" ".join(lines))
        if used or "low on memory" in str(error):
            return f"killed by Ray's memory monitor{f' with {used[1]}' if used else ''}"
        return f"out of memory: {next(filter(None, lines), type(error).__name__)}"[:200]
    causes = [line for line in lines if "dead because" in line or "exit" in line.lower()] or lines or [""]
    return causes[0].split(". ")[0][:200] or type(error).__name__


def describe_shortage(error: BaseException) -> str:
    """One line for the user when this process itself ran out of memory: the cause, what is free, and the remedy."""
    cause = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    free = free_memory.read_free_memory()
    parts = [cause[:200]]
    if free < float("inf"):
        parts.append(f"{free_memory.format_gb(free)} are free")
    parts += [
        f"limited to {free_memory.format_gb(limit)} ({name})" for name, limit in free_memory.read_limits().items()
    ]
    return (
        f"memory is short here ({'; '.join(parts)}); free some, lift the limits, use fewer --workers or a larger "
        "machine, and the same command goes on"
    )


def warn(line: str) -> None:
    """Log one line; Python prints it on stderr where the logger `opd` has no handler."""
    log.warning(line)
