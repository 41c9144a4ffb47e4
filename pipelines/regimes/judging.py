"""The verdict on one trajectory in one view, at one budget.

There are two budgets. `norm`: the norm of the run's update at its end or, if no reference of some arm got so far, the
largest norm that all references reached. The run and the references are interpolated at this norm, since arms differ
much in how far they move. `end`: every run at its own end, which mixes regime and displacement.

A run of the references' own study is judged by the other seeds: runs of one seed share their start.

The verdict is `cannot tell` if

- no budget is common to the run and all references (nothing is extrapolated),
- a reference has fewer than two seeds, or fewer than three diagnostics are common,
- the distances to the two nearest references differ by no more than the largest distance of a trial from its own arm,
- the run is farther from the nearest reference than that reference is from the next.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pipelines.regimes.diagnostics import DIAGNOSTICS
from pipelines.regimes.profile import Point, Profile
from pipelines.regimes.references import SEEDS, Key, References, Trial, choose_references, combine_distances

CANNOT_TELL = "cannot tell"
LEAST = 3  # diagnostics in common
Budget = Literal["norm", "end"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of a run with the references of `study` in one view. reason: why it is `cannot tell`, else empty.

    labels: the names of the reference arms, in order.

    norm: the norm at which runs were compared, None at the ends. distances: by arm and diagnostic. left_out: why,
    by diagnostic. trials: the references judged without their own seeds.
    """

    run: Profile
    study: str
    labels: Mapping[str, str]
    budget: Budget
    verdict: str
    reason: str
    norm: float | None = None
    point: Point | None = None
    beside: References | None = None
    centres: dict[str, dict[str, float]] = field(default_factory=dict)
    distances: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()

    @property
    def combined(self) -> dict[str, float]:
        """Distance by arm, the nearest first."""
        return dict(
            sorted(((arm, combine_distances(found)) for arm, found in self.distances.items()), key=lambda pair: pair[1])
        )

    @property
    def confusion(self) -> float | None:
        """The largest distance of a reference run from its own arm."""
        return max((trial.own for trial in self.trials), default=None)


def compare_run(
    run: Profile, study: str, labels: Mapping[str, str], others: Mapping[Key, Profile], budget: Budget
) -> Comparison:
    """Judge `run` beside the reference runs `others` of `study`, in the same view; labels: of the reference arms."""
    without = run.seed if run.study == study else None
    lacking = [arm for arm in labels if sum(key == arm and seed != without for key, seed in others) < SEEDS]
    if lacking:
        besides = "" if without is None else f" besides seed {without}, which is the run's own"
        reason = f"study {study} has fewer than {SEEDS} measured seeds of {', '.join(lacking)} that moved{besides}"
        return Comparison(run=run, study=study, labels=labels, budget=budget, verdict=CANNOT_TELL, reason=reason)
    if budget == "end":
        return _judge_view(
            run, study, labels, budget, None, run.end(), {key: other.end() for key, other in others.items()}, others
        )
    low, high = common_sizes(others.values())
    norm = min(float(run.norms[-1]), high)
    point = run.point_at_norm(norm) if low <= norm else None
    if point is None:
        reason = (
            f"its update has relative norms of {run.norms.min():.3g} to {run.norms.max():.3g}, and the references "
            f"share those of {low:.3g} to {high:.3g}: there is no budget to compare at"
        )
        return Comparison(run=run, study=study, labels=labels, budget=budget, verdict=CANNOT_TELL, reason=reason)
    points = {
        key: point_of_other
        for key, other in others.items()
        if (point_of_other := other.point_at_norm(norm)) is not None
    }
    return _judge_view(run, study, labels, budget, norm, point, points, others)


def common_sizes(runs: Collection[Profile]) -> tuple[float, float]:
    """The sizes that every one of these trajectories passed through, from and to."""
    return max(float(run.norms[0]) for run in runs), min(float(run.norms.max()) for run in runs)


def _judge_view(
    run: Profile,
    study: str,
    labels: Mapping[str, str],
    budget: Budget,
    norm: float | None,
    point: Point,
    points: Mapping[Key, Point],
    others: Mapping[Key, Profile],
) -> Comparison:
    left_out = _left_out(run, point, points, others)
    names = [d.name for d in DIAGNOSTICS if run.view in d.views and d.name not in left_out]
    if len(names) < LEAST:
        why = f"only {len(names)} diagnostics are there for both it and the references"
        return Comparison(
            run=run,
            study=study,
            labels=labels,
            budget=budget,
            verdict=CANNOT_TELL,
            reason=why,
            norm=norm,
            left_out=left_out,
        )
    references = choose_references(tuple(labels), points, names)
    without = run.seed if run.study == study else None
    centres = {arm: arm_centre for arm in labels if (arm_centre := references.centre(arm, without)) is not None}
    distances = {arm: references.measure_distances(point.values, centre) for arm, centre in centres.items()}
    trials = tuple(references.trials())
    verdict, reason = decide_regime(labels, distances, centres, references, trials)
    return Comparison(
        run=run,
        study=study,
        labels=labels,
        budget=budget,
        verdict=verdict,
        reason=reason,
        norm=norm,
        point=point,
        beside=references,
        centres=centres,
        distances=distances,
        left_out=left_out,
        trials=trials,
    )


def decide_regime(
    labels: Mapping[str, str],
    distances: Mapping[str, Mapping[str, float]],
    centres: Mapping[str, Mapping[str, float]],
    references: References,
    trials: Sequence[Trial],
) -> tuple[str, str]:
    """(verdict, reason) by the rules of the module."""
    far = {arm: combine_distances(by_diagnostic) for arm, by_diagnostic in distances.items()}
    first, second = sorted(far, key=lambda arm: far[arm])[:2]
    confusion = max(trial.own for trial in trials)
    if far[second] - far[first] <= confusion:
        return CANNOT_TELL, (
            f"it is {far[first]:.2g} from {first} and {far[second]:.2g} from {second}, and a reference run can be "
            f"{confusion:.2g} from its own arm"
        )
    nearest = min(
        combine_distances(references.measure_distances(centres[first], centres[arm])) for arm in labels if arm != first
    )
    if far[first] > nearest:
        return CANNOT_TELL, (
            f"it is {far[first]:.2g} from {first}, the nearest, which is only {nearest:.2g} from the next reference"
        )
    return f"{labels[first]}-like", ""


def agree_views(comparisons: Sequence[Comparison]) -> str:
    """The verdict on which the views agree at matched norm."""
    verdicts = {comparison.verdict for comparison in comparisons if comparison.budget == "norm"}
    return verdicts.pop() if len(verdicts) == 1 else CANNOT_TELL


def _left_out(run: Profile, point: Point, points: Mapping[Key, Point], others: Mapping[Key, Profile]) -> dict[str, str]:
    shapes = {other.shapes for other in others.values()}
    reasons = {}
    for diagnostic in DIAGNOSTICS:
        if run.view not in diagnostic.views:
            continue
        name = diagnostic.name
        absent = sorted({arm for (arm, _), other in points.items() if not np.isfinite(other.values[name])})
        if diagnostic.sized and shapes != {run.shapes}:
            reasons[name] = "the references' matrices have other shapes"
        elif not np.isfinite(point.values[name]):
            reasons[name] = "the run has no value there"
        elif absent:
            reasons[name] = f"{', '.join(absent)} has no value there"
    return reasons
