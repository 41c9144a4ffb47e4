"""Bands (guard-rails) of an update: the interval of reference runs at the same norm, and the runs that leave it.

At each relative norm (for the quantity relative_norm: at each step) the n references that reach it, interpolated in its
logarithm on their way up, give the interval in which one more run stays,

    mean +- w c s sqrt(1 + 1/n)

of logarithms where a quantity is positive, and within [0, 1] where it is a similarity. s^2 is the variance over the
references, the larger of its mean over norms within a factor of two and its mean over the whole curve: a few
curves can cross by chance, which is no evidence of a narrow band. With fewer than two references there is no band and
no verdict.

The level holds for a whole run: at most 1 - level of healthy runs trip (`find_trips`) anywhere, in any of the B bands
that decide together. With a = (1 - level) / B and S snapshots a curve,

    c = max(t_{1 - a/2, n-1}, t_{1 - 2a/S, 2n})

the first term for curves that keep their distance (one look a band), the second for curves that wander (about S / 4
looks, with more values behind s). w >= 1 is the `level` quantile, over references left out, of how far they leave a
band of the others (`measure_departure`): references that differ by more than normal values do widen the band.
`python -m pipelines.regimes.calibration` simulates healthy runs and runs that deviate, 20 snapshots in ten bands, and
prints both. Depending on the correlation of snapshots, 0 to 5 % of healthy runs trip, of bands of 2, 3, 5 or 10
references. Few references give a wide band. With three, c = 14.1 and the band reaches 16 s to either side (the band of
one snapshot alone would reach 5 s): a quantity that moves by 5 standard deviations over runs is found in 0 to 22 % of
runs, by 10 in 0 to 57 %, by 20 in 93 % or more. With five references 5 are found in 41 to 66 %, 10 in 99 %; with ten
references 5 in 93 %. Two references find almost nothing. Fewer deciding quantities narrow the band (c = 9.9 for five,
4.3 for one); more references narrow it far more. Not measured: that the references are good runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy.special import stdtrit

from pipelines.regimes.readings import READINGS, order_readings
from pipelines.statistics.samples import RUN

LEVEL = 0.95  # of a whole run, in all bands together
POSITIVE = ("stable_rank", "stable_rank_ratio", "relative_norm")
JUDGED = {"low": pl.Float64(), "high": pl.Float64(), "inside": pl.Boolean(), "references": pl.Int64()}
JUDGED |= {"reason": pl.String()}

NEARBY = np.log(2.0) * np.linspace(-1, 1, 9)  # of the abscissa's logarithm: where the spread is pooled
Key = tuple[str, str]  # view and quantity


class Interval(NamedTuple):
    """The interval in which one more run is expected at a norm, and the number of references."""

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
    """One reference run: y over ascending x, the logarithm of the norm (or of the step)."""

    x: np.ndarray
    y: np.ndarray

    def interpolate(self, x: np.ndarray) -> np.ndarray:
        """Interpolate linearly; NaN outside the curve."""
        if not len(self.x):
            return np.full(x.shape, np.nan)
        slack = 1e-9  # of a logarithm: the ends belong to the curve
        inside = (self.x[0] - slack <= x) & (x <= self.x[-1] + slack)
        return np.where(inside, np.interp(x, self.x, self.y), np.nan)


@dataclass(frozen=True, kw_only=True)
class Band:
    """The band of one quantity in one view. level: of this band alone. widen: w of the module's formula."""

    quantity: str
    curves: tuple[Curve, ...]
    level: float
    widen: float = 1.0

    def interval_at(self, abscissa: float) -> Interval | None:
        """The interval at a relative norm (of the quantity relative_norm: at a step); None where there is no band."""
        return self.intervals_at(np.array([abscissa]))[0]

    def intervals_at(self, abscissas: np.ndarray) -> list[Interval | None]:
        """The interval at each abscissa."""
        intervals: list[Interval | None] = []
        for centre, half, count in zip(*self.expected_interval(np.log(abscissas)), strict=True):
            low, high = centre - self.widen * half, centre + self.widen * half
            if not count:
                intervals.append(None)
            elif self.quantity in POSITIVE:
                intervals.append(Interval(float(np.exp(low)), float(np.exp(high)), int(count)))
            else:
                intervals.append(Interval(max(0.0, float(low)), min(1.0, float(high)), int(count)))
        return intervals

    def expected_interval(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[X] centre and half-width before widening, in the band's own scale, and the references behind them.

        NaN, NaN and 0 where there is no band.
        """
        centre, half = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
        count = np.zeros(x.shape, dtype=np.int64)
        reached = np.array([~np.isnan(curve.interpolate(x)) for curve in self.curves])
        for reach in np.unique(reached, axis=1).T:
            if (n := int(reach.sum())) < 2:
                continue
            reaching = tuple(curve for curve, reaches in zip(self.curves, reach, strict=True) if reaches)
            where = (reached == reach[:, None]).all(axis=0)
            near = x[where][:, None] + NEARBY
            spreads = np.var(
                [curve.interpolate(near) for curve in reaching], axis=0, ddof=1
            )  # NaN where a curve does not reach
            variance = np.maximum(np.nanmean(spreads, axis=1), _variance(reaching))
            looks = float(np.median([len(curve.x) for curve in reaching]))
            centre[where] = np.mean([curve.interpolate(x[where]) for curve in reaching], axis=0)
            half[where] = _critical(self.level, n, looks) * np.sqrt(variance * (1 + 1 / n))
            count[where] = n
        return centre, half, count


def calibrate_bands(references: pl.DataFrame, level: float = LEVEL, deciding: int | None = None) -> dict[Key, Band]:
    """Bands by view and quantity from readings of reference runs.

    level: of a whole run, over all deciding bands; deciding: number of deciding bands, by default all.
    Errors: ValueError for fewer than two runs.
    """
    if (count := references.select(RUN).n_unique()) < 2:
        raise ValueError(f"a band needs two reference runs or more, and there {'is' if count == 1 else 'are'} {count}")
    bands = {}
    parts = references.partition_by("view", "quantity", as_dict=True)
    each = 1 - (1 - level) / (deciding or len(parts))
    for (view, quantity), rows in parts.items():
        curves = tuple(_curve(quantity, run) for run in rows.partition_by(RUN, maintain_order=True))
        departures = [measure_departure(quantity, curves, index, each) for index in range(len(curves))]
        widen = float(np.quantile(departures, level, method="higher"))
        bands[view, quantity] = Band(quantity=quantity, curves=curves, level=each, widen=max(1.0, widen))
    return bands


def judge_readings(readings: pl.DataFrame, bands: Mapping[Key, Band]) -> pl.DataFrame:
    """Add to readings the interval, whether the value is inside, and the reason if that is null."""
    rows = []
    for key, part in readings.partition_by("view", "quantity", as_dict=True).items():
        band, named = bands.get(key), list(part.iter_rows(named=True))
        abscissas = np.array([_abscissa(row) or np.nan for row in named])
        intervals = [None] * len(named) if band is None else band.intervals_at(abscissas)
        for row, interval in zip(named, intervals, strict=True):
            low, high, count = interval or (None, None, None)
            inside, reason = None, None
            if row["value"] is None:
                reason = "no value at this step"
            elif interval is None:
                reason = f"outside calibration: fewer than two references reach this {_axis(row['quantity'])}"
            else:
                inside = interval.low <= row["value"] <= interval.high
            rows.append(row | {"low": low, "high": high, "inside": inside, "references": count, "reason": reason})
    return order_readings(pl.DataFrame(rows, schema=READINGS | JUDGED, orient="row"))


def find_trips(judged: pl.DataFrame) -> list[Trip]:
    """The trips of one run by step: two consecutive snapshots outside a band.

    A single snapshot outside does not trip, since the next step may correct it. A snapshot without a verdict between
    two outside breaks the pair.
    """
    trips = []
    for rows in judged.partition_by("view", "quantity", maintain_order=True):
        before = None
        for row in rows.sort("step").iter_rows(named=True):
            if before is False and row["inside"] is False:
                trips.append(Trip(*(row[name] for name in Trip._fields)))
                break
            before = row["inside"]
    return sorted(trips)


def left_out(references: pl.DataFrame, level: float = LEVEL, deciding: int | None = None) -> pl.DataFrame:
    """Each reference judged by bands of the others: recipe, seed, view, quantity, snapshots, inside, tripped.

    snapshots: with a verdict; inside: how many of them. With three references the others are two, whose band has
    c = 127 where ten bands decide, 64 where five do: if no reference trips, this says little about the band of three.
    """
    parts = []
    for run in references.partition_by(RUN, maintain_order=True):
        recipe, seed = run.select(RUN).row(0)
        judged = judge_readings(run, calibrate_bands(references.filter(~_band_of(recipe, seed)), level, deciding))
        tripped_keys = {(trip.view, trip.quantity) for trip in find_trips(judged)}
        counts = judged.group_by(*RUN, "view", "quantity").agg(
            snapshots=pl.col("inside").count().cast(pl.Int64()), inside=pl.col("inside").sum().cast(pl.Int64())
        )
        tripped = [key in tripped_keys for key in counts.select("view", "quantity").iter_rows()]
        parts.append(counts.with_columns(tripped=pl.Series(tripped, dtype=pl.Boolean())))
    return pl.concat(parts).sort(*RUN, "view", "quantity")


@lru_cache
def _critical(level: float, references: int, snapshots: float) -> float:
    """c of the module's formula for a band of this level."""
    tail = (1 - level) / 2
    apart = stdtrit(references - 1, 1 - tail)
    return float(max(apart, stdtrit(2 * references, 1 - tail / max(1.0, snapshots / 4))))


@lru_cache(maxsize=1024)
def _variance(curves: tuple[Curve, ...]) -> float:
    """The variance over curves, meaned over all their snapshots that every one of them reaches."""
    first, last = max(curve.x[0] for curve in curves), min(curve.x[-1] for curve in curves)
    x = np.unique(np.concatenate([curve.x for curve in curves]))
    x = x[(x >= first) & (x <= last)]
    values = np.array([np.interp(x, curve.x, curve.y) for curve in curves])
    return float(values.var(axis=0, ddof=1).mean()) if len(x) else 0.0


def _band_of(recipe: str, seed: int) -> pl.Expr:
    return (pl.col("recipe") == recipe) & (pl.col("seed") == seed)


def _axis(quantity: str) -> str:
    return "step" if quantity == "relative_norm" else "norm"


def _abscissa(row: Mapping[str, float | None]) -> float | None:
    return row["step"] if row["quantity"] == "relative_norm" else row["relative_norm"]


def _curve(quantity: str, run: pl.DataFrame) -> Curve:
    """The curve of one run. Only snapshots with a new largest norm count, so that each norm has one value."""
    at = "step" if quantity == "relative_norm" else "relative_norm"
    run = run.sort("step").filter(pl.col("value").is_not_null(), pl.col(at) > 0)
    if quantity in POSITIVE:
        run = run.filter(pl.col("value") > 0)  # an update of zero has no logarithm
    run = run.filter(pl.col(at) > pl.col(at).cum_max().shift(1).fill_null(0.0))
    y = run["value"].to_numpy()
    return Curve(np.log(run[at].to_numpy()), np.log(y) if quantity in POSITIVE else y)


def measure_departure(quantity: str, curves: tuple[Curve, ...], index: int, level: float) -> float:
    """How far one curve leaves a band of the others, in half-widths: the w at which it does not trip.

    The largest, over two consecutive snapshots, of the smaller |value - mean| / half-width; 0 without such a pair.
    """
    own, others = curves[index], curves[:index] + curves[index + 1 :]
    centre, half, _ = Band(quantity=quantity, curves=others, level=level).expected_interval(own.x)
    ratio = np.abs(own.y - centre) / np.where(half > 0.0, half, np.nan)  # equal others have no spread
    pairs = np.minimum(ratio[1:], ratio[:-1])  # NaN where one of the two has no band
    return float(np.max(pairs[~np.isnan(pairs)], initial=0.0))
