"""Every claim decided on the tables of one study: the table `verdicts`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import stdev

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.report.arms import EVERY
from pipelines.report.claims import CLAIMS, Claim, Control
from pipelines.report.intervals import Interval, bootstrap, interval, size
from pipelines.report.metrics import Metric
from pipelines.report.numbers import aligned
from pipelines.report.power import detectable
from pipelines.report.samples import samples

ONE_SEED = "One seed: no interval, no verdict."
STATUS = {True: "holds", False: "fails", None: "undecided"}
OWN = ("effect", "low", "high")
CONTROL = ("control_effect", "control_low", "control_high")
Values = Mapping[Metric, pl.DataFrame]


def verdicts(study: str, tables: Mapping[str, pl.LazyFrame]) -> pl.DataFrame:
    """The claims of `claims.CLAIMS` on `tables` (name to rows of this study), with the schema of `verdicts`.

    effect = mean over seeds of left - right, paired by seed. low and high are its 95 % Student-t interval with n - 1
    degrees of freedom, which decides; boot_low and boot_high are the percentile bootstrap over seeds, which does not
    (`intervals.bootstrap` says why). One seed leaves all of them and holds null. A claim whose arms, view or snapshot
    are absent is left out. Intervals are not corrected for the number of claims.
    """
    metrics = [metric for claim in CLAIMS for metric in claim.metrics]
    others = [other for metric in metrics if (other := metric.reweighted()) is not None]
    values = samples((*metrics, *others), tables, EVERY)
    rows = [row for claim in CLAIMS if (row := decide(study, claim, values)) is not None]
    return pl.DataFrame(rows, schema=TABLES["verdicts"].schema, orient="row")


def decide(study: str, claim: Claim, values: Values) -> dict[str, object] | None:
    """One row of `verdicts`, or None where no seed has both sides."""
    pairs = paired(claim, values)
    if pairs.is_empty():
        return None
    differences = (pairs["left"] - pairs["right"]).to_list()
    effect, ends = interval(differences), bootstrap(differences)
    right = interval(pairs["right"].to_list()).mean
    holds, note = None, f"{ONE_SEED} {claim.note}"
    if effect.low is not None and effect.high is not None:
        holds, note = claim.judge(effect.low, effect.high, right), f"{claim.note}{span(claim, pairs)}"
    weighted = reweighted(claim, values)
    return {
        "study": study,
        "suite": claim.suite,
        "section": claim.section,
        "claim": claim.text,
        "metric": claim.metric.address(pairs["cut"][0]),
        "left": f"{study}.{claim.left}",
        "right": right_name(study, claim),
        "left_value": interval(pairs["left"].to_list()).mean,
        "right_value": right,
        "effect": effect.mean,
        "low": effect.low,
        "high": effect.high,
        "boot_low": None if ends is None else ends[0],
        "boot_high": None if ends is None else ends[1],
        "size": size(differences),
        "detectable": detectable(stdev(differences), len(differences)) if len(differences) > 1 else None,
        "holds": holds,
        "status": STATUS[holds],
        "seeds": effect.n,
        **beside(claim, values, effect, holds),
        "same_sign_weighted": None if weighted is None else (weighted > 0) == (effect.mean > 0),
        "paper": claim.paper,
        "note": note,
    }


def paired(claim: Claim, values: Values) -> pl.DataFrame:
    """Columns seed, left, right, cut: one row per seed that has both sides."""
    left = values[claim.metric].filter(pl.col("arm") == claim.left).select("seed", "cut", left="value")
    if isinstance(claim.right, float):
        return left.with_columns(right=pl.lit(claim.right))
    other = values[claim.baseline or claim.metric].filter(pl.col("arm") == claim.right)
    return left.join(other.select("seed", right="value"), on="seed").sort("seed")


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A control's contrast: its effect over seeds and the mean of its right-hand side."""

    control: Control
    effect: Interval
    right: float


def contrast(claim: Claim, values: Values) -> Beside | None:
    """The first of the claim's controls whose arms there are, paired as the claim is."""
    for control in claim.controls:
        pairs = paired(replace(claim, left=control.left, right=control.right), values)
        if not pairs.is_empty():
            effect = interval((pairs["left"] - pairs["right"]).to_list())
            return Beside(control=control, effect=effect, right=interval(pairs["right"].to_list()).mean)
    return None


def beside(claim: Claim, values: Values, effect: Interval, holds: bool | None) -> dict[str, object]:
    """The columns of the control; all null where there is none."""
    found = contrast(claim, values)
    if found is None:
        return {name: None for name in ("control", *CONTROL, "control_says")}
    low, high, says = found.effect.low, found.effect.high, None
    if holds and effect.low is not None and effect.high is not None and low is not None and high is not None:
        says = claim.read(found.control, (effect.low, effect.high), (low, high), found.right)
    return {
        "control": found.control.words,
        "control_effect": found.effect.mean,
        "control_low": low,
        "control_high": high,
        "control_says": says,
    }


def reweighted(claim: Claim, values: Values) -> float | None:
    """The effect by the other weighting of matrices; None where there are none, or no numbers of weights."""
    metric, baseline = claim.metric.reweighted(), claim.baseline and claim.baseline.reweighted()
    if metric is None:
        return None
    pairs = paired(replace(claim, metric=metric, baseline=baseline), values)
    return None if pairs.is_empty() else interval((pairs["left"] - pairs["right"]).to_list()).mean


def span(claim: Claim, pairs: pl.DataFrame) -> str:
    """Of a claim about a band, the seeds' own spread, which the band is to be read beside."""
    if claim.kind not in ("near", "far") or isinstance(claim.right, float):
        return ""
    low, high = min(pairs["right"].to_list()), max(pairs["right"].to_list())
    return f" The seeds of the right-hand side alone span {low:.3g} to {high:.3g}."


def right_name(study: str, claim: Claim) -> str:
    if isinstance(claim.right, float):
        return str(claim.right)
    when = "" if claim.baseline is None else f" at {100 * claim.baseline.at:g} % of its steps"
    return f"{study}.{claim.right}{when}"


def terminal(rows: pl.DataFrame) -> str:
    """Verdict rows in aligned columns: decision, claim, effect with its interval, the control's, the paper's words.

    Empty without rows.
    """
    if rows.is_empty():
        return ""
    lines = [["verdict", "claim", "left - right [95 % interval]", "its control", "paper"]]
    for row in rows.iter_rows(named=True):
        own, other = (ends(row[effect], row[low], row[high]) for effect, low, high in (OWN, CONTROL))
        says = f": {row['control_says']}" if row["control_says"] else ""
        lines.append([row["status"], row["claim"], own, f"{other}{says}", row["paper"]])
    return aligned(lines)


def ends(effect: float | None, low: float | None, high: float | None) -> str:
    if effect is None:
        return ""
    return f"{effect:.3g}" if low is None or high is None else f"{effect:.3g} [{low:.3g}, {high:.3g}]"
