"""Processes that were lost: which errors say so, whether memory was why, and what is said of it in one line.

Ray's memory monitor kills workers of a node that is nearly full: the newest first, several at once where that is
needed, whoever holds the memory. So a death by it is no fault of what was being done, and is repeated with more room.
"""

import errno
import logging
import re
import signal

from pipelines.runs.cluster import room

RETRIES = 3  # of a call whose process died
log = logging.getLogger("opd")
# As torch, the loader of libraries, Python and Polars have it.
_SHORT = re.compile(
    r"(?i)can.?t allocate memory|cannot allocate memory|failed to map segment|n.t (start|spawn) .*thread"
)
_USED = re.compile(r"was ([\d.]+ ?GB used / [\d.]+ ?GB) limit")


class Died(RuntimeError):
    """A process died at the same call again and again, or never started."""


class Gone(RuntimeError):
    """A process without Ray died. code: its exit code, or minus the number of the signal; None where nobody knows."""

    def __init__(self, code: int | None) -> None:
        self.killed = code == -signal.SIGKILL  # which the system does where memory is short
        words = "killed, as the system does where memory is short" if self.killed else f"ended with exit code {code}"
        super().__init__(words)


def lost() -> tuple[type[Exception], ...]:
    """What Ray raises when an actor, its node or its result is gone."""
    from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError

    return RayActorError, ObjectLostError, OutOfMemoryError, NodeDiedError, WorkerCrashedError


def starved(error: BaseException) -> bool:
    """Whether memory was the reason: the memory monitor's, or what could not be allocated."""
    import sys

    if isinstance(error, Gone):
        return error.killed
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM or _SHORT.search(str(error)):
        return True
    if (torch := sys.modules.get("torch")) is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    if (ray := sys.modules.get("ray")) is None:
        return False
    return isinstance(error, ray.exceptions.OutOfMemoryError) or (
        isinstance(error, ray.exceptions.RayActorError) and "running low on memory" in str(error)
    )


def reason(death: Exception) -> str:
    """What is known of a death, in one line."""
    if isinstance(death, Gone):
        return str(death)
    lines = [" ".join(line.split()) for line in str(death).splitlines()]
    if starved(death):
        used = _USED.search(" ".join(lines))
        if used or "low on memory" in str(death):
            return f"killed by Ray's memory monitor{f' with {used[1]}' if used else ''}"
        return f"out of memory: {next(filter(None, lines), type(death).__name__)}"[:200]
    found = [line for line in lines if "dead because" in line or "exit" in line.lower()] or lines or [""]
    return found[0].split(". ")[0][:200] or type(death).__name__


def shortage(error: BaseException) -> str:
    """What is said where memory was short for this process itself: why, and how much there is."""
    why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    limits = [f"limited to {room.gb(limit)} ({words})" for words, limit in room.limits().items()]
    free = room.here()
    facts = [why[:200], *[f"{room.gb(free)} are free"] * (free < float("inf")), *limits]
    return (
        f"memory is short here ({'; '.join(facts)}); free some, lift the limits, use fewer --workers or a larger "
        "machine, and the same command goes on"
    )


def tell(line: str) -> None:
    """Say one line, on stderr where nobody listens to the logger `opd`."""
    log.warning(line)
