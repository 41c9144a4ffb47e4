"""Decide every claim on the tables of one study: the table `verdicts`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import stdev

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.statistics.exclusions import Exclusion, find_exclusions
from pipelines.statistics.intervals import (
    DECIDING,
    Interval,
    bootstrap_interval,
    effect_size,
    equal_to_rounding,
    student_interval,
)
from pipelines.statistics.metrics import Metric
from pipelines.statistics.power import Scored, detectable_mean, pooled_detectable, pooled_half_width, score_arm
from pipelines.statistics.samples import SAMPLED, collect_samples
from pipelines.studies.claim import Claim, Control
from pipelines.studies.story import Story

FEW = {1: "One seed: no interval, no verdict.", 2: "Two seeds: no verdict, which takes three."}
EQUAL = "The difference is the same for every seed up to rounding, which is no evidence of a small spread: no verdict."
STATUS = {True: "holds", False: "fails", None: "undecided"}
OWN = ("effect", "low", "high")
CONTROL = ("control_effect", "control_low", "control_high")
Values = Mapping[Metric, pl.DataFrame]


def decide_all(study: str, tables: Mapping[str, pl.LazyFrame], story: Story) -> pl.DataFrame:
    """Decide the claims of `story` on `tables` (name to rows of this study): rows with the schema of `verdicts`.

    effect = mean over seeds of left - right, paired by seed. low and high are its 95 % Student-t interval with n - 1
    degrees of freedom, cut to the possible range; this interval decides. For accuracies it includes the errors over
    samples and problems (`power.pooled_half_width`). boot_low and boot_high are the percentile bootstrap over seeds,
    which does not decide (see `intervals.bootstrap_interval`). Fewer than three seeds decide nothing, nor do
    differences that are equal up to rounding; with one seed the interval is null. Excluded runs (`exclusions`) are
    named in the note. A claim whose arms, view or snapshot are absent is left out. Intervals are not corrected for the
    number of claims.
    """
    metrics = [metric for claim in story.default_claims for metric in claim.metrics]
    others = [other for metric in metrics if (other := metric.with_other_weighting()) is not None]
    values = collect_samples((*metrics, *others), tables, story.all_arms)
    excluded = find_exclusions(tables, story.all_arms)
    rows = [row for claim in story.default_claims if (row := decide_claim(study, claim, values, excluded)) is not None]
    return pl.DataFrame(rows, schema=TABLES["verdicts"].schema, orient="row")


def decide_claim(study: str, claim: Claim, values: Values, excluded: Sequence[Exclusion]) -> dict[str, object] | None:
    """One row of `verdicts`, or None where no seed has both sides."""
    pairs = pair_sides(claim, values)
    if pairs.is_empty():
        return None
    differences, scale = (pairs["left"] - pairs["right"]).to_list(), largest_value(pairs)
    effect, ends, right = (
        estimate_difference(claim, pairs),
        bootstrap_interval(differences),
        student_interval(pairs["right"].to_list()).mean,
    )
    holds = None
    if can_decide(pairs) and effect.low is not None and effect.high is not None:
        holds = claim.judge(effect.low, effect.high, right)
    few = FEW.get(effect.n, "") or ("" if can_decide(pairs) else EQUAL)
    exclusion_note = describe_excluded_runs(claim, excluded)
    weighted = reweighted_effect(claim, values)
    return {
        "study": study,
        "suite": claim.suite,
        "section": claim.section,
        "claim": claim.text,
        "metric": claim.metric.address(pairs["cut"][0]),
        "left": f"{study}.{claim.left}",
        "right": right_name(study, claim),
        "left_value": student_interval(pairs["left"].to_list()).mean,
        "right_value": right,
        "effect": effect.mean,
        "low": effect.low,
        "high": effect.high,
        "boot_low": None if ends is None else ends[0],
        "boot_high": None if ends is None else ends[1],
        "size": effect_size(differences, scale),
        "detectable": detectable_difference(claim, pairs),
        "holds": holds,
        "status": STATUS[holds],
        "seeds": effect.n,
        **control_columns(claim, values, effect, holds),
        "same_sign_weighted": None if weighted is None else (weighted > 0) == (effect.mean > 0),
        "paper": claim.paper,
        "note": " ".join(filter(None, (few, exclusion_note, f"{claim.note}{seed_span(claim, pairs)}"))),
    }


def pair_sides(claim: Claim, values: Values) -> pl.DataFrame:
    """Columns seed, left, right, cut: one row per seed that has both sides. Accuracies also have the columns
    `SAMPLED`."""
    left = values[claim.metric].filter(pl.col("arm") == claim.left).drop("arm").rename({"value": "left"})
    if isinstance(claim.right, float):
        return left.with_columns(right=pl.lit(claim.right))
    other = values[claim.baseline or claim.metric].filter(pl.col("arm") == claim.right).drop("arm", "cut")
    return left.join(other.rename({"value": "right"}), on="seed", suffix="_right").sort("seed")


def estimate_difference(claim: Claim, pairs: pl.DataFrame) -> Interval:
    """The mean difference with its interval over seeds; for accuracies also over samples and problems."""
    differences = (pairs["left"] - pairs["right"]).to_list()
    if not (sides := evaluation_set(pairs)):
        return student_interval(differences, scale=largest_value(pairs))
    mean, half = student_interval(differences).mean, pooled_half_width(differences, sides)
    if not half:
        return Interval(mean=mean, low=None, high=None, n=len(differences))
    least, most = (0 - claim.right, 1 - claim.right) if isinstance(claim.right, float) else (-1.0, 1.0)
    return Interval(mean=mean, low=max(least, mean - half), high=min(most, mean + half), n=len(differences))


def detectable_difference(claim: Claim, pairs: pl.DataFrame) -> float | None:
    """The smallest mean difference that these seeds find with 80 % power; None if there is no spread."""
    differences = (pairs["left"] - pairs["right"]).to_list()
    if sides := evaluation_set(pairs):
        return pooled_detectable(differences, sides) or None
    if len(differences) < 2 or equal_to_rounding(differences, largest_value(pairs)):
        return None
    return detectable_mean(stdev(differences), len(differences))


def evaluation_set(pairs: pl.DataFrame) -> list[Scored]:
    """Variances and problems of both sides of a comparison of accuracies, without constants. Empty for other
    metrics."""
    sides = []
    for side, end in (("left", ""), ("right", "_right")):
        if f"problems{end}" in pairs.columns:
            stderrs, problems, samples = (pairs[f"{name}{end}"].to_list() for name in SAMPLED)
            sides.append(score_arm(pairs[side].to_list(), stderrs, problems[0], samples[0]))
    return sides


def largest_value(pairs: pl.DataFrame) -> float:
    """The largest absolute value of both sides, the scale of the rounding of differences."""
    return max(map(abs, (*pairs["left"], *pairs["right"])))


def can_decide(pairs: pl.DataFrame) -> bool:
    """Whether there are enough seeds and their differences differ by more than rounding."""
    return len(pairs) >= DECIDING and not equal_to_rounding(
        (pairs["left"] - pairs["right"]).to_list(), largest_value(pairs)
    )


def describe_excluded_runs(claim: Claim, excluded: Sequence[Exclusion]) -> str:
    """The excluded runs of the arms of a claim, with reasons, as a sentence; empty if there are none."""
    arms, tables = (claim.left, claim.right), {None, *(metric.table for metric in claim.metrics)}
    named = [str(exclusion) for exclusion in excluded if exclusion.arm in arms and exclusion.table in tables]
    return f"Left out: {'; '.join(named)}." if named else ""


@dataclass(frozen=True, kw_only=True)
class ControlContrast:
    """A control's contrast: its effect over seeds, the mean of its right-hand side, and whether it decides."""

    control: Control
    effect: Interval
    right: float
    decides: bool


def control_contrast(claim: Claim, values: Values) -> ControlContrast | None:
    """The contrast of the first control of the claim whose arms are measured."""
    for control in claim.controls:
        other = replace(claim, left=control.left, right=control.right)
        pairs = pair_sides(other, values)
        if not pairs.is_empty():
            right = student_interval(pairs["right"].to_list()).mean
            return ControlContrast(
                control=control, effect=estimate_difference(other, pairs), right=right, decides=can_decide(pairs)
            )
    return None


def control_columns(claim: Claim, values: Values, effect: Interval, holds: bool | None) -> dict[str, object]:
    """The columns of the control; all null without one."""
    contrast = control_contrast(claim, values)
    if contrast is None:
        return {name: None for name in ("control", *CONTROL, "control_says")}
    low, high, says = contrast.effect.low, contrast.effect.high, None
    own = None if effect.low is None or effect.high is None else (effect.low, effect.high)
    if holds and own is not None and contrast.decides and low is not None and high is not None:
        says = claim.read(contrast.control, own, (low, high), contrast.right)
    return {
        "control": contrast.control.words,
        "control_effect": contrast.effect.mean,
        "control_low": low,
        "control_high": high,
        "control_says": says,
    }


def reweighted_effect(claim: Claim, values: Values) -> float | None:
    """The effect with the other weighting of matrices; None for metrics without matrices or weight counts."""
    metric, baseline = claim.metric.with_other_weighting(), claim.baseline and claim.baseline.with_other_weighting()
    if metric is None:
        return None
    pairs = pair_sides(replace(claim, metric=metric, baseline=baseline), values)
    return None if pairs.is_empty() else student_interval((pairs["left"] - pairs["right"]).to_list()).mean


def seed_span(claim: Claim, pairs: pl.DataFrame) -> str:
    """For a claim about a band: the range of the right-hand seeds, to compare with the band."""
    if claim.kind not in ("near", "far") or isinstance(claim.right, float):
        return ""
    low, high = min(pairs["right"].to_list()), max(pairs["right"].to_list())
    return f" The seeds of the right-hand side alone span {low:.3g} to {high:.3g}."


def right_name(study: str, claim: Claim) -> str:
    if isinstance(claim.right, float):
        return str(claim.right)
    when = "" if claim.baseline is None else f" at {100 * claim.baseline.at:g} % of its steps"
    return f"{study}.{claim.right}{when}"
