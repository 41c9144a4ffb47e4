"""Sim_16 of the update at a share of a run to its end, against the outcome of the run: the table `predictions`.

Per run: Sim_16 (input side, mean over projections) at 5, 10 and 20 % of its steps, in each view; and its accuracy at
T=1, the gain over its start, and its accuracy on every other family of held-out problems that was evaluated. Pearson's
and Spearman's correlation over the runs of a study, in three scopes:

    pooled        all runs, so that arms differ in everything else too
    one start     the arms that start from the anchor's end
    within arms   arm means subtracted on both sides, arms of one run left out, so that arms cannot confound

Interval and p-value are those of `correlation.py`: whole arms are exchanged, and within arms whole seeds, so that
the number of seeds counts there. Nothing is corrected for the number of rows. A correlation over arms is not an effect
of locking.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.regimes.prediction.correlation import (
    COEFFICIENTS,
    bootstrap_interval,
    count_arrangements,
    permutation_p,
    spearman_and_pearson,
)
from pipelines.statistics.metrics import ACCURACY, START, VIEWS, Metric, in_view
from pipelines.statistics.samples import collect_samples

SHARES = (0.05, 0.10, 0.20)
SCOPES = ("pooled", "one start", "within arms")
LEAST_RUNS, LEAST_SEEDS, LEAST_UNITS = 8, 2, 5  # for an interval; units are arms, and seeds within arms
LEAST = 3  # runs for a correlation
FEW = 20  # arrangements, below which no p is small
NOISE = "the outcome varies no more than its sampling error"
_LOCKED = Metric(
    words="Sim_16 to the final step", table="locking", column="similarity", where=(("side", "input"), ("k", 16))
)
_TRANSFER = Metric(words="held-out-family accuracy at T=1", table="transfer", column="accuracy", unit="percent")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome to predict. family: of held-out problems, None for the task trained on."""

    name: str
    metric: Metric
    family: str | None = None

    @property
    def error(self) -> Metric:
        """The standard error of the accuracy at the end."""
        return replace(self.metric, column="stderr", since=None)


def prediction_rows(study: str, tables: Mapping[str, pl.LazyFrame], siblings: Collection[str]) -> pl.DataFrame:
    """Every correlation of one study's runs, with the schema of `predictions`; empty if no run has both numbers.

    tables: name to rows of this study. siblings: the arms of the scope `one start`.
    """
    arms = _arms(tables)
    outcomes = [
        Outcome(name="accuracy", metric=ACCURACY),
        Outcome(name="gain", metric=replace(ACCURACY, since=START)),
        *(
            Outcome(name="transfer", metric=replace(_TRANSFER, where=(("temperature", 1.0), ("family", f))), family=f)
            for f in _families(tables)
        ),
    ]
    early = {(view, share): replace(in_view(_LOCKED, view), at=share) for view in VIEWS for share in SHARES}
    read = [metric for outcome in outcomes for metric in (outcome.metric, outcome.error)]
    values = collect_samples([*early.values(), *read], tables, arms)
    rows = []
    for (view, share), metric in early.items():
        for outcome in outcomes:
            pairs = _pair_outcomes(values[metric], values[outcome.metric], values[outcome.error])
            for scope in SCOPES:
                keys = {"study": study, "view": view, "share": share, "outcome": outcome.name, "scope": scope}
                rows += [keys | {"family": outcome.family} | row for row in correlate_pairs(pairs, scope, siblings)]
    return pl.DataFrame([row for row in rows if row["runs"]], schema=TABLES["predictions"].schema, orient="row")


def correlate_pairs(pairs: pl.DataFrame, scope: str, siblings: Collection[str]) -> list[dict[str, Any]]:
    """Both coefficients over `pairs` (columns arm, seed, x, y, error of y) in a scope: interval, p-value and note."""
    if scope == "one start":
        pairs = pairs.filter(pl.col("arm").is_in(list(siblings)))
    if scope == "within arms":
        pairs = pairs.filter(pl.len().over("arm") > 1)
        # Rounded, since ranks would distinguish equal differences by their last bits.
        pairs = pairs.with_columns((pl.col("x", "y") - pl.col("x", "y").mean().over("arm")).round(12))
    pairs = pairs.sort("arm", "seed")
    x, y, arms, seeds = (pairs[name].to_numpy() for name in ("x", "y", "arm", "seed"))
    units, cells = (seeds, arms) if scope == "within arms" else (arms, seeds)
    counts = {"runs": len(x), "seeds": len(set(seeds))}
    few = len(x) < LEAST_RUNS or counts["seeds"] < LEAST_SEEDS or len(set(units)) < LEAST_UNITS
    results = []
    for name in COEFFICIENTS:
        row = {"coefficient": name, **counts, "correlation": None}
        if len(x) < LEAST:
            notes = [f"{len(x)} runs: no correlation"]
        elif not np.isfinite(value := spearman_and_pearson(x, y, name)):
            notes = ["one side does not vary"]
        else:
            ways = count_arrangements(units, cells)
            row |= {"correlation": value, "p_value": permutation_p(x, y, units, cells, name) if ways > 1 else None}
            interval = None if few else bootstrap_interval(x, y, arms, seeds, name)
            row["low"], row["high"] = interval or (None, None)
            notes = [] if interval else [f"{len(set(arms))} arms and {counts['seeds']} seeds: no interval"]
            notes += [f"p is at least 1/{ways}" if ways > 1 else "nothing to exchange: no p"] if ways < FEW else []
            notes += [NOISE] if pairs["y"].std() <= pairs["error"].mean() else []  # type: ignore[operator]
        results.append(row | {"note": "; ".join(notes)})
    return results


def _pair_outcomes(early: pl.DataFrame, outcome: pl.DataFrame, error: pl.DataFrame) -> pl.DataFrame:
    keys = ("arm", "seed")
    both = early.select(*keys, x="value").join(outcome.select(*keys, y="value"), on=keys)
    return both.join(error.select(*keys, error="value"), on=keys, how="left").drop_nulls(["x", "y"]).sort(*keys)


def _arms(tables: Mapping[str, pl.LazyFrame]) -> Collection[str]:
    frame = tables.get("locking", pl.LazyFrame(schema=TABLES["locking"].schema))
    names = frame.select(pl.col("recipe").unique()).collect()["recipe"].to_list()
    return sorted(name.partition(".")[2] for name in names)


def _families(tables: Mapping[str, pl.LazyFrame]) -> list[str]:
    frame = tables.get("transfer", pl.LazyFrame(schema=TABLES["transfer"].schema))
    return frame.select(pl.col("family").unique().sort()).collect()["family"].to_list()
