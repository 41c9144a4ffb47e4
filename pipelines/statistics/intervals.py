"""Intervals over seeds: Student-t, which decides every verdict, and the bootstrap, which is shown with it.

What Student's t does at three seeds, in percent of 400,000 draws each whose true mean is 0, where 95, 2.5 and 2.5 are
nominal (`python -m pipelines.statistics.coverage` prints this, its candidates, and five seeds):

    differences                                      covered   decided too high   too low
    normal                                              94.9                2.6       2.5
    two binomial accuracies of 96 problems, p = 1/2     95.2                2.4       2.4
    -1, 0 or 1 of 96 problems                          100.0                0.0       0.0
    1 - Exp(1), skewed                                  88.5               10.9       0.6

If equal draws decided, the third line would be 7.4 % too high and too low. No candidate corrects the fourth line
and keeps the power for normal differences. Of a mean of 3.26 sd, which t finds in 80 % of cases, Hall's transformation
finds 61 % and decides 8.2 % of the skewed nulls too high, Johnson's corrected t finds 51 % and decides 7.5 % (and 4.0 %
too low), a t interval of 99 % finds 28 % and decides 3.5 %. Three values do not show their skewness, and five do little
better (t 11.4 %, Hall 7.3 %). So Student's t decides, and its level holds for differences without a long tail.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev

import numpy as np

EXACT = 6  # values up to which all n^n resamples are enumerated: 46,656 for 6
DRAWS = 10_000  # resamples of more values
SEED = 0  # of these draws
ROUNDING = 1e-9  # of the largest value: runs of different seeds differ by more, the same weights measured twice by less
DECIDING = 3  # seeds that a verdict takes at least


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its interval; `low` and `high` are None for one value, and where the values have no spread."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def student_interval(values: Sequence[float], level: float = 0.95, scale: float | None = None) -> Interval:
    """Student-t interval mean +- t_{(1+level)/2, n-1} s / sqrt(n) of n independent values.

    It covers the mean of normal values in 95 % of cases at any n >= 2 (of others: see the module). It is wide for three
    seeds (t = 4.30). One value has no interval, nor have values that are equal up to the
    rounding of `scale` (`equal_to_rounding`), nor values of which one is not finite, whose mean is NaN.

    Raises ValueError if `values` is empty.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    n = len(values)
    if not all(map(math.isfinite, values)):
        return Interval(mean=math.nan, low=None, high=None, n=n)
    mean = fmean(values)
    if n == 1 or equal_to_rounding(values, scale):
        return Interval(mean=mean, low=None, high=None, n=n)
    from scipy.special import stdtrit  # here, since what only lists a story starts without it

    half = float(stdtrit(n - 1, (1 + level) / 2)) * stdev(values) / math.sqrt(n)
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n)


def equal_to_rounding(values: Sequence[float], scale: float | None = None) -> bool:
    """Whether finite values spread by no more than rounding; scale: of what they are differences of, by default theirs.

    Equal values are no evidence of a small spread: they may be copies of one run.
    """
    largest = max(map(abs, values)) if scale is None else scale
    return max(values) - min(values) <= ROUNDING * largest


def bootstrap_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Percentile ends of the bootstrap distribution of the mean: of all n^n resamples up to `EXACT`, else of `DRAWS`.

    The ends are quantiles of that distribution without interpolation, the upper one the mirror of the lower. Of three
    values they are the smallest and the largest, between which the mean of a symmetric distribution lies in
    1 - 2 / 2^3 = 75 % of cases, of five values about 83 %: the bootstrap is shown beside the t interval and decides
    nothing. None for one value, whose resamples say nothing about spread, and where a value is not finite.

    Raises ValueError if `values` is empty.
    """
    if not values:
        raise ValueError("a bootstrap needs at least one value")
    n = len(values)
    if n == 1 or not all(map(math.isfinite, values)):
        return None
    # Sorted, so that the result does not depend on the order of the seeds.
    means = np.sort(np.array(values))[resamples(n)].mean(axis=1)
    low, high = (float(np.quantile(side, (1 - level) / 2, method="inverted_cdf")) for side in (means, -means))
    return low, -high


@lru_cache
def resamples(n: int) -> np.ndarray:
    """[R, n] indices: every one of the R = n^n resamples of n values up to `EXACT`, else `DRAWS` of them."""
    if n > EXACT:
        return np.random.default_rng(SEED).integers(n, size=(DRAWS, n))
    return np.indices((n,) * n).reshape(n, -1).T


def effect_size(values: Sequence[float], scale: float | None = None) -> float | None:
    """Standardised effect mean / sd: the differences' mean in units of their spread over seeds; None without one."""
    if len(values) < 2 or not all(map(math.isfinite, values)) or equal_to_rounding(values, scale):
        return None
    return fmean(values) / stdev(values)
