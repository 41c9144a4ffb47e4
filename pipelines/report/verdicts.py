"""Every claim decided on the tables of one study: the table `verdicts`."""

from collections.abc import Mapping

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.report.claims import CLAIMS, Claim
from pipelines.report.intervals import interval
from pipelines.report.metrics import Metric
from pipelines.report.numbers import aligned
from pipelines.report.samples import samples

ONE_SEED = "One seed: no interval, no verdict."


def verdicts(study: str, tables: Mapping[str, pl.LazyFrame]) -> pl.DataFrame:
    """The claims of `claims.CLAIMS` on `tables` (name to rows of this study), with the schema of `verdicts`.

    effect = mean over seeds of left - right, paired by seed; low and high are its 95 % Student-t interval with n - 1
    degrees of freedom (`intervals.interval` says why not a bootstrap). One seed leaves low, high and holds null. A
    claim whose arms, view or snapshot are absent is left out. Intervals are not corrected for the number of claims.
    """
    values = samples((metric for claim in CLAIMS for metric in claim.metrics), tables)
    rows = [row for claim in CLAIMS if (row := decide(study, claim, values)) is not None]
    return pl.DataFrame(rows, schema=TABLES["verdicts"].schema, orient="row")


def decide(study: str, claim: Claim, values: Mapping[Metric, pl.DataFrame]) -> dict[str, object] | None:
    """One row of `verdicts`, or None where no seed has both sides."""
    pairs = paired(claim, values)
    if pairs.is_empty():
        return None
    effect = interval((pairs["left"] - pairs["right"]).to_list())
    right = interval(pairs["right"].to_list()).mean
    holds, note = None, f"{ONE_SEED} {claim.note}"
    if effect.low is not None and effect.high is not None:
        holds, note = claim.judge(effect.low, effect.high, right), claim.note
    return {
        "study": study,
        "claim": claim.text,
        "metric": claim.metric.address(pairs["cut"][0]),
        "left": f"{study}.{claim.left}",
        "right": right_name(study, claim),
        "left_value": interval(pairs["left"].to_list()).mean,
        "right_value": right,
        "effect": effect.mean,
        "low": effect.low,
        "high": effect.high,
        "holds": holds,
        "seeds": effect.n,
        "paper": claim.paper,
        "note": note,
    }


def paired(claim: Claim, values: Mapping[Metric, pl.DataFrame]) -> pl.DataFrame:
    """Columns seed, left, right, cut: one row per seed that has both sides."""
    left = values[claim.metric].filter(pl.col("arm") == claim.left).select("seed", "cut", left="value")
    if isinstance(claim.right, float):
        return left.with_columns(right=pl.lit(claim.right))
    other = values[claim.baseline or claim.metric].filter(pl.col("arm") == claim.right)
    return left.join(other.select("seed", right="value"), on="seed").sort("seed")


def right_name(study: str, claim: Claim) -> str:
    if isinstance(claim.right, float):
        return str(claim.right)
    when = "" if claim.baseline is None else f" at {100 * claim.baseline.at:g} % of its steps"
    return f"{study}.{claim.right}{when}"


def terminal(rows: pl.DataFrame) -> str:
    """Verdict rows in aligned columns: decision, claim, effect with its interval, and the paper's words."""
    words = {True: "holds", False: "contradicted", None: "undecided"}
    lines = [["verdict", "claim", "left - right [95 % interval]", "paper"]]
    for row in rows.iter_rows(named=True):
        low, high = row["low"], row["high"]
        bounds = "" if low is None or high is None else f" [{low:.3g}, {high:.3g}]"
        lines.append([words[row["holds"]], row["claim"], f"{row['effect']:.3g}{bounds}", row["paper"]])
    return aligned(lines)
