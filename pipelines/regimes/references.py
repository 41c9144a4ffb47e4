"""The runs of the reference arms of a study at one budget: their centres, their spread over seeds, and their confusion.

z_d(x, A) = |x_d - mean of A's runs| / s_d, in the diagnostic's own scale, where s_d^2 is the variance over seeds pooled
over the arms (never below what the numbers' own error bounds allow). The distance of x from A is the root mean square
of z_d over the diagnostics in common. The median was tried on the references alone, and takes OPD for RLVR where few
diagnostics tell them apart. Diagnostics are correlated, so a distance is no number of standard deviations: what is far
is said by the references themselves, each judged with its own seed left out (`Trial`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipelines.regimes.profile import Point

SEEDS = 2  # of each arm, at the least
TINY = 1e-12  # spread of numbers that have no error at all
Key = tuple[str, int]  # arm, seed


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A reference run, judged by the runs of other seeds. distances: by arm."""

    arm: str
    seed: int
    distances: dict[str, float]

    @property
    def nearest(self) -> str:
        return min(self.distances, key=lambda arm: self.distances[arm])

    @property
    def own(self) -> float:
        return self.distances[self.arm]


@dataclass(frozen=True, kw_only=True)
class References:
    """Reference runs at one budget. names: the diagnostics compared. spread: by diagnostic, in its own scale."""

    arms: tuple[str, ...]
    points: "Mapping[Key, Point]"
    names: tuple[str, ...]
    spread: dict[str, float]

    def centre(self, arm: str, without: int | None = None) -> dict[str, float] | None:
        """Mean of an arm's runs, a seed left out; None without one."""
        runs = [point for (key, seed), point in self.points.items() if key == arm and seed != without]
        if not runs:
            return None
        return {name: float(np.mean([run.values[name] for run in runs])) for name in self.names}

    def step(self, arm: str) -> float:
        """Mean step of an arm's runs at the budget."""
        return float(np.mean([point.step for (key, _), point in self.points.items() if key == arm]))

    def measure_distances(self, values: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
        """|difference| in spreads, by diagnostic."""
        return {name: abs(values[name] - other[name]) / self.spread[name] for name in self.names}

    def trials(self) -> list[Trial]:
        """Every reference run judged by the other seeds of all arms, where every arm has another seed."""
        trials = []
        for (arm, seed), point in sorted(self.points.items()):
            centres = {other: self.centre(other, without=seed) for other in self.arms}
            if all(centre is not None for centre in centres.values()):
                distances = {
                    o: combine_distances(self.measure_distances(point.values, c))
                    for o, c in centres.items()
                    if c is not None
                }
                trials.append(Trial(arm=arm, seed=seed, distances=distances))
        return trials


def choose_references(arms: Sequence[str], points: "Mapping[Key, Point]", names: Sequence[str]) -> References:
    """References compared by the diagnostics `names`, which all of them have. Every arm has a run, one of them two."""
    spread = {}
    for name in names:
        squares, free = 0.0, 0
        for arm in arms:
            values = [point.values[name] for (key, _), point in points.items() if key == arm]
            squares += float(np.sum((np.array(values) - np.mean(values)) ** 2))
            free += len(values) - 1
        errors = [point.errors[name] for point in points.values() if np.isfinite(point.errors[name])]
        spread[name] = max(float(np.sqrt(squares / free)), float(np.mean(errors)) if errors else 0.0, TINY)
    return References(arms=tuple(arms), points=points, names=tuple(names), spread=spread)


def combine_distances(distances: Mapping[str, float]) -> float:
    """Root mean square over the diagnostics."""
    return float(np.sqrt(np.mean(np.square(list(distances.values())))))
