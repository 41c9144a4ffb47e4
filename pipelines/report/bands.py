"""Guard-rails of an update: where reference runs' readings lay at the same norm, and which runs leave them.

At each relative norm (for the quantity relative_norm: at each step) the n references that reach it, interpolated in its
logarithm on their way up, give the interval in which one more run is expected,

    mean +- w t_{(1+level)/2, n-1} s sqrt(1 + 1/n)

of logarithms where a quantity is positive, and within [0, 1] where it is a similarity. s^2 is the variance over the
references, meaned over norms within a factor of two: few curves cross somewhere by accident, which is no evidence of a
narrow band. w >= 1 is the `level` quantile of |value - mean| / half-width of references left out, at their own
snapshots. Where fewer than two references reach there is no band, and no verdict.
Not measured: that the references are good runs, and a whole run's chance to stay inside (`left_out` counts that).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy.stats import t as student

from pipelines.report.readings import READINGS, ordered
from pipelines.report.samples import RUN

LEVEL = 0.95
POSITIVE = ("stable_rank", "stable_rank_ratio", "relative_norm")
JUDGED = {"low": pl.Float64(), "high": pl.Float64(), "inside": pl.Boolean(), "references": pl.Int64()}
JUDGED |= {"reason": pl.String()}

NEARBY = np.log(2.0) * np.linspace(-1, 1, 9)  # of the abscissa's logarithm: where the spread is pooled
Key = tuple[str, str]  # view and quantity


class Interval(NamedTuple):
    """Where one more run is expected at some norm, from so many references."""

    low: float
    high: float
    references: int


class Trip(NamedTuple):
    """The second of the first two consecutive snapshots outside a band."""

    step: int
    view: str
    quantity: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Curve:
    """One reference: y along ascending x, the logarithm of the norm (or of the step)."""

    x: np.ndarray
    y: np.ndarray

    def at(self, x: float) -> float | None:
        """Linear in between; None outside."""
        slack = 1e-9  # of a logarithm: the ends belong to the curve
        if not len(self.x) or not self.x[0] - slack <= x <= self.x[-1] + slack:
            return None
        return float(np.interp(x, self.x, self.y))


@dataclass(frozen=True, kw_only=True)
class Band:
    """The band of one quantity in one view. widen: w of the module's formula."""

    quantity: str
    curves: tuple[Curve, ...]
    level: float = LEVEL
    widen: float = 1.0

    def at(self, abscissa: float) -> Interval | None:
        """The interval at a relative norm (of the quantity relative_norm: at a step); None where there is no band."""
        found = self.expected(float(np.log(abscissa)))
        if found is None:
            return None
        centre, half, count = found
        low, high = centre - self.widen * half, centre + self.widen * half
        if self.quantity in POSITIVE:
            return Interval(float(np.exp(low)), float(np.exp(high)), count)
        return Interval(max(0.0, low), min(1.0, high), count)

    def expected(self, x: float) -> tuple[float, float, int] | None:
        """Centre and half-width before widening, in the band's own scale, and the references behind them."""
        here = [curve for curve in self.curves if curve.at(x) is not None]
        n = len(here)
        if n < 2:
            return None
        centre = float(np.mean([y for curve in here if (y := curve.at(x)) is not None]))
        near = [[y for curve in here if (y := curve.at(x + away)) is not None] for away in NEARBY]
        variance = float(np.mean([np.var(values, ddof=1) for values in near if len(values) == n]))
        return centre, _t(self.level, n - 1) * (variance * (1 + 1 / n)) ** 0.5, n


def calibrate(references: pl.DataFrame, level: float = LEVEL) -> dict[Key, Band]:
    """Bands by view and quantity from readings of reference runs. Errors: ValueError for fewer than two runs."""
    if (count := references.select(RUN).n_unique()) < 2:
        raise ValueError(f"a band needs two reference runs or more, and there {'is' if count == 1 else 'are'} {count}")
    found = {}
    for (view, quantity), rows in references.partition_by("view", "quantity", as_dict=True).items():
        curves = tuple(_curve(quantity, run) for run in rows.partition_by(RUN, maintain_order=True))
        excess = [ratio for index in range(len(curves)) for ratio in _excess(quantity, curves, index, level)]
        widen = float(np.quantile(excess, level, method="higher")) if excess else 1.0
        found[view, quantity] = Band(quantity=quantity, curves=curves, level=level, widen=max(1.0, widen))
    return found


def judge(found: pl.DataFrame, bands: Mapping[Key, Band]) -> pl.DataFrame:
    """Readings with their interval, whether the value is inside it, and the reason where that is null."""
    rows = []
    for row in ordered(found).iter_rows(named=True):
        band, where = bands.get((row["view"], row["quantity"])), _abscissa(row)
        interval = band.at(where) if band and where else None
        low, high, count = interval or (None, None, None)
        inside, reason = None, None
        if row["value"] is None:
            reason = "no value at this step"
        elif interval is None:
            reason = f"outside calibration: fewer than two references reach this {_axis(row['quantity'])}"
        else:
            inside = interval.low <= row["value"] <= interval.high
        rows.append(row | {"low": low, "high": high, "inside": inside, "references": count, "reason": reason})
    return pl.DataFrame(rows, schema=READINGS | JUDGED, orient="row")


def trips(judged: pl.DataFrame) -> list[Trip]:
    """Where quantities of one run left their bands, the first first: two consecutive snapshots outside.

    One alone says little: a band of 95 % lets one snapshot in twenty out by design, and a run is looked at some twenty
    times in several quantities. A snapshot without a verdict between two breaks the pair.
    """
    found = []
    for rows in judged.partition_by("view", "quantity", maintain_order=True):
        before = None
        for row in rows.sort("step").iter_rows(named=True):
            if before is False and row["inside"] is False:
                found.append(Trip(*(row[name] for name in Trip._fields)))
                break
            before = row["inside"]
    return sorted(found)


def left_out(references: pl.DataFrame, level: float = LEVEL) -> pl.DataFrame:
    """Each reference judged by bands of the others: recipe, seed, view, quantity, snapshots, inside, tripped.

    snapshots: with a verdict; inside: how many of them. With three references the others are two, whose band is not
    widened and has t = 12.7: what it says of the band of three is that it errs on the wide side.
    """
    parts = []
    for run in references.partition_by(RUN, maintain_order=True):
        recipe, seed = run.select(RUN).row(0)
        judged = judge(run, calibrate(references.filter(~_of(recipe, seed)), level))
        gone = {(trip.view, trip.quantity) for trip in trips(judged)}
        counts = judged.group_by(*RUN, "view", "quantity").agg(
            snapshots=pl.col("inside").count().cast(pl.Int64()), inside=pl.col("inside").sum().cast(pl.Int64())
        )
        tripped = [key in gone for key in counts.select("view", "quantity").iter_rows()]
        parts.append(counts.with_columns(tripped=pl.Series(tripped, dtype=pl.Boolean())))
    return pl.concat(parts).sort(*RUN, "view", "quantity")


@cache
def _t(level: float, freedom: int) -> float:
    """The quantile of Student's t that bounds the central `level`."""
    return float(student.ppf((1 + level) / 2, freedom))


def _of(recipe: str, seed: int) -> pl.Expr:
    return (pl.col("recipe") == recipe) & (pl.col("seed") == seed)


def _axis(quantity: str) -> str:
    return "step" if quantity == "relative_norm" else "norm"


def _abscissa(row: Mapping[str, float | None]) -> float | None:
    return row["step"] if row["quantity"] == "relative_norm" else row["relative_norm"]


def _curve(quantity: str, run: pl.DataFrame) -> Curve:
    """Of one run. Where its norm turns back only the way up counts, so that a norm has one value."""
    at = "step" if quantity == "relative_norm" else "relative_norm"
    run = run.sort("step").filter(pl.col("value").is_not_null(), pl.col(at) > 0)
    if quantity in POSITIVE:
        run = run.filter(pl.col("value") > 0)  # an update of zero has no logarithm
    run = run.filter(pl.col(at) > pl.col(at).cum_max().shift(1).fill_null(0.0))
    y = run["value"].to_numpy()
    return Curve(np.log(run[at].to_numpy()), np.log(y) if quantity in POSITIVE else y)


def _excess(quantity: str, curves: tuple[Curve, ...], index: int, level: float) -> list[float]:
    """|value - mean| / half-width of one reference at its snapshots, in a band of the others."""
    others = Band(quantity=quantity, curves=curves[:index] + curves[index + 1 :], level=level)
    found = []
    for x, y in zip(curves[index].x, curves[index].y, strict=True):
        expected = others.expected(float(x))
        if expected is not None and expected[1] > 0.0:  # two equal others say nothing of a spread
            found.append(abs(float(y) - expected[0]) / expected[1])
    return found
