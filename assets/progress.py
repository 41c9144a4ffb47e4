"""How far a run is: lines in Dagster's log, and events for whoever listens in this process (`assets.launch`)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import dagster as dg

from pipelines.progress import duration
from pipelines.runs.trajectories.training import Progress

# recipe, seed, phase, share done in [0, 1], wall seconds of work so far in this process
Listener = Callable[[str, int, str, float, float], None]
listeners: list[Listener] = []
QUIET = 30.0  # seconds after which a step that is under way says so again, whatever it has done
PARTS = 4  # a line for each of so many parts of the work


class Stopped(Exception):
    """The launch was interrupted; raised between two optimizer steps or matrices, so the store is whole."""


@dataclass
class Phase:
    """What was said of one phase. begun: when it was first heard of, and what was done by then."""

    begun: float
    from_share: float
    part: int = -1
    said: float = -QUIET

    def estimate_seconds_left(self, share: float, now: float) -> float | None:
        """Seconds left at the pace since the first event; None before there is one."""
        done = share - self.from_share
        return (now - self.begun) * (1 - share) / done if done > 0 else None


@dataclass
class Tracker:
    """Progress of one run. A listener that raises stops the run at the next safe point."""

    context: dg.AssetExecutionContext
    recipe: str
    seed: int
    clock: Callable[[], float] = time.monotonic
    phases: dict[str, Phase] = field(default_factory=dict)

    def trained(self, state: Progress) -> None:
        share = 1.0 if state.finished else state.step / state.steps
        self._tell("train", share, f"step {state.step} of {state.steps}", state.seconds)

    def measured(self, done: int, of: int) -> None:
        self._tell("measure", done / of, "matrices", 0.0)

    def _tell(self, phase: str, share: float, words: str, seconds: float) -> None:
        for listener in listeners:
            listener(self.recipe, self.seed, phase, share, seconds)
        now = self.clock()
        known = self.phases.setdefault(phase, Phase(now, share))
        part = int(PARTS * share)
        if part == known.part and now - known.said < QUIET:
            return
        known.part, known.said = part, now
        left = known.estimate_seconds_left(share, now)
        eta = f", {duration(left)} left" if left is not None and share < 1 else ""
        self.context.log.info(f"{self.recipe} seed {self.seed} {phase}: {words} ({100 * share:.0f} %){eta}")
