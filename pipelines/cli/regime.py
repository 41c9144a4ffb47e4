"""`opd regime`: print which of SFT, OPD and RLVR a measured run resembles."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.cli.layout import stack_table, wrap_text
from pipelines.cli.names import IMPORTED, resolve_run, resolve_study
from pipelines.cli.options import Commands
from pipelines.store.objects import Store, default_uri
from pipelines.studies.catalog import list_studies, study_arg

if TYPE_CHECKING:
    from pipelines.regimes.judging import Comparison

DEFAULT = "tiny"  # the study whose runs are the references of imports


def register(commands: Commands) -> None:
    top = commands.add_parser("regime", help="which of SFT, OPD and RLVR a run is like")
    top.description = (
        "Compare a measured run with the arms sft, opd and rlvr of a study, over their seeds, where all of them have "
        "moved their weights equally far: a verdict, which may be that one cannot tell, its reason, and the distance "
        "to each in every diagnostic. The numbers are kept in the table `regime`."
    )
    top.epilog = "Example: opd regime tiny.sft-matched --seed 1; opd regime mine --reference tiny"
    top.add_argument("name", metavar="NAME", help="a run, such as tiny.opd or tiny.opd/1, or an import's name")
    top.add_argument("--seed", type=int, metavar="N", help="seed of the run (default: the only one, or 0)")
    top.add_argument("--step", type=int, metavar="S", help="a measured step of the run (default: the last)")
    top.add_argument(
        "--reference", metavar="STUDY", help=f"study of the references (default: the run's own, else {DEFAULT})"
    )
    top.set_defaults(command=show_regime)


def show_regime(args: argparse.Namespace) -> int:
    from pipelines.runs.verdicts import judging

    store = Store(default_uri())
    recipe, seed = resolve_run(store, args.name, args.seed, judging.measured_recipes(store), 0)
    own = recipe.partition(".")[0]
    if not args.reference and own not in list_studies() and f"{own}." != IMPORTED:
        raise ValueError(f"no file of study {own} is known, whose arms are the references: export OPD_STUDIES=FILE")
    study = resolve_study(args.reference or (own if own in list_studies() else DEFAULT)).name
    if not judging.labels_of(study):
        raise ValueError(f"study {study} has no two arms to compare with; name another as --reference {DEFAULT}")
    comparisons = judging.judge_regime(
        judging.load_profiles(store, [(recipe, seed)], study), recipe, seed, study, args.step
    )
    if not comparisons:
        raise ValueError(f"{recipe} seed {seed} has no projection that moved; there is nothing to compare")
    beside = f"\nreferences: the runs of study {study}" if any(each.distances for each in comparisons) else ""
    print(f"{describe_regime(comparisons)}{beside}", flush=True)
    judging.store_comparison(store, comparisons)
    return 0


def describe_regime(comparisons: "Sequence[Comparison]") -> str:
    """Format the verdict, one reason and the distances; with too few references, also the command that trains them."""
    from pipelines.regimes.judging import agree_views

    matched = [each for each in comparisons if each.budget == "norm"]
    run = matched[0].run
    lines = [f"{run.recipe} seed {run.seed} at step {int(run.steps[-1])}: {agree_views(matched)}"]
    reasons = dict.fromkeys(each.reason for each in matched if each.reason)
    shown = [each for each in matched if each.distances] or [each for each in comparisons if each.distances]
    if not shown:
        study = matched[0].study
        return "\n".join([*lines, wrap_text(f"{'; '.join(reasons)}. To train them: opd study run {study_arg(study)}")])
    if len({each.verdict for each in matched}) > 1:
        since = {each.run.view: f", since {each.reason}" if each.reason else "" for each in matched}
        verdicts = "; ".join(f"{each.run.view} says {each.verdict}{since[each.run.view]}" for each in matched)
        lines.append(wrap_text(f"the views disagree: {verdicts}"))
    elif reasons:
        lines.append(wrap_text(f"reason: {next(iter(reasons))}"))
    else:
        nearest, second, *_ = shown[0].combined
        lines.append(
            wrap_text(
                f"reason: {_far(shown[0], nearest)}, {_far(shown[0], second)}, and a reference run is at most "
                f"{shown[0].confusion:.2g} from its own arm ({shown[0].run.view})"
            )
        )
    lines += _other_objective(matched)
    return "\n".join([*lines, "", wrap_text(_measure(shown)), stack_table(_distances(shown))])


def _far(comparison: "Comparison", arm: str) -> str:
    return f"{comparison.combined[arm]:.2g} from {comparison.labels[arm]}"


def _other_objective(matched: "Sequence[Comparison]") -> list[str]:
    """Explain a run whose geometry resembles another objective than the one it was trained with."""
    from pipelines.regimes.judging import CANNOT_TELL, agree_views

    run, verdict = matched[0].run, agree_views(matched)
    own = matched[0].labels.get(run.objective or "")
    if verdict == CANNOT_TELL or own is None or f"{own}-like" == verdict:
        return []
    return [wrap_text(f"trained by {run.objective}: at this norm the geometry does not tell its objective")]


def _measure(shown: "Sequence[Comparison]") -> str:
    """Describe the block of distances and where each view is evaluated."""
    first = shown[0]
    if first.budget == "end":
        return "distances at the ends, however far each went, which is no verdict (in spreads over seeds)"
    places = []
    for each in shown:
        assert each.norm is not None and each.point is not None
        places.append(f"{each.run.view} norm {each.norm:.3g}, step {each.point.step:.3g}")
    return f"distances where all moved equally far, in spreads over seeds ({'; '.join(places)})"


def _distances(shown: "Sequence[Comparison]") -> list[list[str]]:
    """Build a row for each diagnostic and a column for each view and arm; missing values stay empty."""
    from pipelines.regimes.diagnostics import DIAGNOSTICS

    columns = [(each, arm) for each in shown for arm in each.distances]
    views = [each.run.view if arm == next(iter(each.distances)) else "" for each, arm in columns]
    lines = [["", *views], ["", *(each.labels[arm] for each, arm in columns)]]
    for diagnostic in DIAGNOSTICS:
        values = [each.distances[arm].get(diagnostic.name) for each, arm in columns]
        if any(value is not None for value in values):
            lines.append(
                [diagnostic.name.replace("_", " "), *("-" if value is None else f"{value:.2g}" for value in values)]
            )
    lines.append(["root mean square", *(f"{each.combined[arm]:.2g}" for each, arm in columns)])
    return lines
