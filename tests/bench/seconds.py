"""Seconds of work: CPU seconds of this process, or seconds that pass."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Result = TypeVar("Result")
PATIENCE = 30.0  # CPU seconds after which nothing is repeated


@dataclass(frozen=True)
class Timed(Generic[Result]):
    """What a call returned the last time, its median seconds, and how often it ran."""

    result: Result
    seconds: float
    runs: int


def cpu(call: Callable[[], Result], repeats: int = 1) -> Timed[Result]:
    """Median CPU seconds of `call` over `repeats` runs, fewer once they took PATIENCE together.

    CPU time does not grow while the process waits for a core, but caches, clock speed and memory bandwidth are shared
    with the neighbours, so ratios are taken within one run.
    """
    spent: list[float] = []
    while True:
        begun = time.process_time()
        result = call()
        spent.append(time.process_time() - begun)
        if len(spent) >= repeats or sum(spent) > PATIENCE:
            return Timed(result, statistics.median(spent), len(spent))


def wall(call: Callable[[], Result]) -> Timed[Result]:
    """Seconds that pass during `call`, waiting for a disk or for a core included."""
    begun = time.perf_counter()
    result = call()
    return Timed(result, time.perf_counter() - begun, 1)
