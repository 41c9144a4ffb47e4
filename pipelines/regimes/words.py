"""Comparisons on the terminal: aligned columns and plain sentences."""

from collections.abc import Sequence

from pipelines.regimes.diagnostics import BY_NAME
from pipelines.regimes.judging import CANNOT_TELL, Comparison, overall
from pipelines.regimes.rows import natural
from pipelines.statistics.numbers import aligned, quantity


def terminal(comparisons: Sequence[Comparison]) -> str:
    """Every view at matched norm, what the ends would have said, and the verdict."""
    blocks = [_block(comparison) for comparison in comparisons if comparison.budget == "norm"]
    return "\n\n".join([*blocks, *[_ends(c) for c in comparisons if c.budget == "end"], sentence(comparisons)])


def sentence(comparisons: Sequence[Comparison]) -> str:
    """The verdict, on what it rests, and what it does not say."""
    matched = [comparison for comparison in comparisons if comparison.budget == "norm"]
    run, verdict = matched[0].run, overall(matched)
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


def _block(found: Comparison) -> str:
    if found.beside is None or found.point is None:
        return f"{found.run.view}: {found.reason}"
    labels, arms = list(found.labels.values()), tuple(found.labels)
    lines = [["diagnostic", "run", *labels, "spread", *(f"to {label}" for label in labels)]]
    steps = [found.point.step, *(found.beside.step(arm) for arm in arms)]
    lines.append(["step", *(f"{step:.3g}" for step in steps), *[""] * (len(arms) + 1)])
    for name in found.beside.names:
        diagnostic, spread = BY_NAME[name], found.beside.spread[name]
        values = [found.point.values, *(found.centres[arm] for arm in arms)]
        shown = f"{100 * spread:.2g} %" if diagnostic.log else f"{spread:.2g}"
        lines.append(
            [
                diagnostic.words,
                *(quantity(natural(name, value[name]), "") for value in values),
                shown,
                *(f"{found.distances[arm][name]:.2g}" for arm in arms),
            ]
        )
    lines.append(["root mean square", *[""] * (len(arms) + 2), *(f"{found.combined[arm]:.2g}" for arm in arms)])
    told = [f"{found.run.view}, {_where(found)}: {found.verdict}", aligned(lines), _trials(found)]
    told += [f"left out: {BY_NAME[name].words} ({why})" for name, why in found.left_out.items()]
    return "\n".join(told)


def _trials(found: Comparison) -> str:
    right = sum(trial.nearest == trial.arm for trial in found.trials)
    wrong = [f"{t.arm} seed {t.seed} taken for {t.nearest}" for t in found.trials if t.nearest != t.arm]
    told = f" ({', '.join(wrong)})" if wrong else ""
    return (
        f"references judged by the other seeds: {right} of {len(found.trials)} right{told}, "
        f"at most {found.confusion:.2g} from their own arm"
    )


def _ends(found: Comparison) -> str:
    if not found.combined:
        return f"{found.run.view}, at the ends: {found.reason}"
    distances = ", ".join(f"{distance:.2g} from {found.labels[arm]}" for arm, distance in found.combined.items())
    return f"{found.run.view}, at the ends, however far each went: {found.verdict} ({distances})"
