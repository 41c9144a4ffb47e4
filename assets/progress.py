"""How far a run is: lines in Dagster's log, and events for whoever listens in this process (`assets.launch`)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import dagster as dg

from pipelines.runs.training import Progress

# recipe, seed, phase, share done in [0, 1], wall seconds of work so far in this process
Listener = Callable[[str, int, str, float, float], None]
listeners: list[Listener] = []


@dataclass
class Tracker:
    """Progress of one run. A listener that raises stops the run at the next safe point."""

    context: dg.AssetExecutionContext
    recipe: str
    seed: int
    logged: dict[str, int] = field(default_factory=dict)

    def trained(self, state: Progress) -> None:
        share = 1.0 if state.finished else state.step / state.steps
        self._tell("train", share, f"step {state.step} of {state.steps}", state.seconds)

    def measured(self, done: int, of: int) -> None:
        self._tell("measure", done / of, f"{100 * done // of} % of the work", 0.0)

    def _tell(self, phase: str, share: float, words: str, seconds: float) -> None:
        for listener in listeners:
            listener(self.recipe, self.seed, phase, share, seconds)
        quarter = int(4 * share)
        if self.logged.get(phase) != quarter:
            self.logged[phase] = quarter
            self.context.log.info(f"{self.recipe} seed {self.seed} {phase}: {words}")
