"""Wall and CPU seconds per phase of one process."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines import lake
from pipelines.store.objects import Store


class Clock:
    """Accumulates phases; `seconds` maps a phase to [wall, cpu]. A nested phase takes its time from the outer one.

    beside: returns the CPU seconds so far of a thread that works in parallel with the phases.
    """

    def __init__(
        self, seconds: dict[str, list[float]] | None = None, beside: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.seconds = {phase: list(pair) for phase, pair in (seconds or {}).items()}
        self.beside, self._told = beside, beside()
        self._open: list[str] = []
        self._since = (0.0, 0.0)

    @property
    def wall(self) -> float:
        """Wall seconds of all phases."""
        return sum(pair[0] for pair in self.seconds.values())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def book(self, phase: str) -> None:
        """Charge the thread's CPU seconds since the last call to a phase."""
        told = self.beside()
        self.seconds.setdefault(phase, [0.0, 0.0])[1] += told - self._told
        self._told = told

    def _charge(self) -> None:
        """Charge the time since the last change to the innermost phase."""
        now = (time.perf_counter(), time.process_time() - self.beside())
        if self._open:
            total = self.seconds.setdefault(self._open[-1], [0.0, 0.0])
            for i in range(2):
                total[i] += now[i] - self._since[i]
        self._since = now


def write_timing(store: Store, study: str, recipe: str, seed: int, step: int, clock: Clock) -> None:
    """Upsert the phases of `clock` into the timing table of a run."""
    stored = lake.read_partition(store, "timing", recipe=recipe, seed=seed)
    old = [] if stored is None else [row for row in stored.to_dicts() if row["phase"] not in clock.seconds]
    keys = {"study": study, "recipe": recipe, "seed": seed, "step": step}
    new = [keys | {"phase": phase, "wall_s": wall, "cpu_s": cpu} for phase, (wall, cpu) in clock.seconds.items()]
    lake.write(store, "timing", old + new, recipe=recipe, seed=seed)
