"""The interval over seeds behind every verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its interval; `low` and `high` are None for one value."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student-t interval mean +- t_{(1+level)/2, n-1} s / sqrt(n) of n independent values.

    A percentile bootstrap of three seeds cannot leave the range of the three and covers far less than it says; the t
    interval is wide there (t = 4.30 for n = 3), which is the honest width. One value has no interval.

    Raises ValueError if `values` is empty.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    mean, n = fmean(values), len(values)
    if n == 1:
        return Interval(mean=mean, low=None, high=None, n=1)
    half = float(student.ppf((1 + level) / 2, n - 1)) * stdev(values) / math.sqrt(n)
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n)
