"""Wall and CPU seconds per phase of one process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Accumulates phases; `seconds` maps a phase to [wall, cpu]."""

    def __init__(self, seconds: dict[str, list[float]] | None = None) -> None:
        self.seconds = {phase: list(pair) for phase, pair in (seconds or {}).items()}

    @property
    def wall(self) -> float:
        """Wall seconds of all phases."""
        return sum(pair[0] for pair in self.seconds.values())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            total = self.seconds.setdefault(name, [0.0, 0.0])
            total[0] += time.perf_counter() - wall
            total[1] += time.process_time() - cpu
