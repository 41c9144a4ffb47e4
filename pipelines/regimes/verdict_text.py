"""Comparisons in plain sentences."""

from collections.abc import Sequence

from pipelines.regimes.judging import CANNOT_TELL, Comparison, agree_views


def describe_verdict(comparisons: Sequence[Comparison]) -> str:
    """The verdict, on what it rests, and what it does not say."""
    matched = [comparison for comparison in comparisons if comparison.budget == "norm"]
    run, verdict = matched[0].run, agree_views(matched)
    name = f"{run.recipe} seed {run.seed} at step {int(run.steps[-1])}"
    if verdict == CANNOT_TELL:
        views = {comparison.verdict for comparison in matched}
        if len(views) == 1:
            return f"{name}: {CANNOT_TELL}. In {'; in '.join(f'{c.run.view}, {c.reason}' for c in matched)}."
        sentence = "; in ".join(f"{c.run.view} {c.verdict}{f' ({c.reason})' if c.reason else ''}" for c in matched)
        return f"{name}: {CANNOT_TELL}, since the views disagree. In {sentence}."
    parts = [f"{name} is {verdict}.", *[f"In {_describe_distances(comparison)}." for comparison in matched]]
    own = matched[0].labels.get(run.objective or "")
    if own and f"{own}-like" != verdict:
        parts.append(
            f"It was trained by {run.objective}: where both moved equally far, its geometry is that of "
            f"{_label(matched[0])} and does not tell its objective."
        )
    return " ".join(parts)


def _describe_distances(comparison: Comparison) -> str:
    distances = ", ".join(
        f"{distance:.2g} from {comparison.labels[arm]}" for arm, distance in comparison.combined.items()
    )
    return f"{comparison.run.view}, {_describe_budget(comparison)}: {distances}"


def _describe_budget(comparison: Comparison) -> str:
    if comparison.norm is None or comparison.point is None:
        return "no common budget"
    last = int(comparison.run.steps[-1])
    less = "" if comparison.point.step == last else ", the farthest that every reference went"
    return f"relative norm {comparison.norm:.3g} (step {comparison.point.step:.3g} of {last}{less})"


def _label(comparison: Comparison) -> str:
    return comparison.labels[next(iter(comparison.combined))]
