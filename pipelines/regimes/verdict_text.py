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
        said = "; in ".join(f"{c.run.view} {c.verdict}{f' ({c.reason})' if c.reason else ''}" for c in matched)
        return f"{name}: {CANNOT_TELL}, since the views disagree. In {said}."
    parts = [f"{name} is {verdict}.", *[f"In {_far(comparison)}." for comparison in matched]]
    own = matched[0].labels.get(run.objective or "")
    if own and f"{own}-like" != verdict:
        parts.append(
            f"It was trained by {run.objective}: where both moved equally far, its geometry is that of "
            f"{_label(matched[0])} and does not tell its objective."
        )
    return " ".join(parts)


def _far(found: Comparison) -> str:
    distances = ", ".join(f"{distance:.2g} from {found.labels[arm]}" for arm, distance in found.combined.items())
    return f"{found.run.view}, {_where(found)}: {distances}"


def _where(found: Comparison) -> str:
    if found.norm is None or found.point is None:
        return "no common budget"
    last = int(found.run.steps[-1])
    less = "" if found.point.step == last else ", the farthest that every reference went"
    return f"relative norm {found.norm:.3g} (step {found.point.step:.3g} of {last}{less})"


def _label(found: Comparison) -> str:
    return found.labels[next(iter(found.combined))]
