"""Simulate intervals over a few seeds: coverage, false decisions and power. `python -m` prints the table.

Differences between arms are drawn n at a time from families whose mean is 0: normal; binomial (two accuracies of 96
problems, p = 1/2); discrete (-1, 0 or 1 of 96 problems, equally likely); skewed (1 - Exp(1)). Equal draws have no
interval and decide nothing, as in `intervals.student_interval`; they count as covered. Compared with Student's t:

    johnson   t of mean + m3 / (6 n s^2) + m3 mean^2 / (3 s^4) in the mean's place (Johnson 1978)
    hall      t of the monotone cubic in mean / s that removes the skewness (Hall 1992)
    t99       Student's t interval of 99 %
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
from scipy.special import stdtrit

from pipelines.statistics.intervals import ROUNDING
from pipelines.statistics.numbers import align_columns

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
PROBLEMS = 96
FAMILIES: dict[str, Draw] = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "binomial": lambda generator, shape: (
        (generator.binomial(PROBLEMS, 0.5, shape) - generator.binomial(PROBLEMS, 0.5, shape)) / PROBLEMS
    ),
    "discrete": lambda generator, shape: generator.integers(-1, 2, shape) / PROBLEMS,
    "skewed": lambda generator, shape: 1 - generator.exponential(size=shape),
}
FOUND = 3.26  # sd: the mean of normal differences that Student's t finds with 80 % power at three seeds
SCHEMA = pl.Schema(
    {
        "seeds": pl.Int64(),
        "interval": pl.String(),
        "family": pl.String(),
        "covered": pl.Float64(),
        "too_high": pl.Float64(),
        "too_low": pl.Float64(),
        "power": pl.Float64(),
    }
)


def simulate_statistics(values: np.ndarray) -> dict[str, tuple[np.ndarray, float]]:
    """The statistic and the critical value of each interval for draws [N, n]; NaN for equal draws."""
    n = values.shape[1]
    mean, sd = values.mean(axis=1), values.std(axis=1, ddof=1)
    spread = values.max(axis=1) - values.min(axis=1)
    sd = np.where(spread > ROUNDING * np.abs(values).max(axis=1), sd, np.nan)
    third = ((values - mean[:, None]) ** 3).mean(axis=1)
    unbiased = third * n**2 / ((n - 1) * (n - 2))
    johnson = mean + unbiased / (6 * n * sd**2) + unbiased * mean**2 / (3 * sd**4)
    own = sd * np.sqrt((n - 1) / n)  # with n in the denominator, as Hall's expansion has it
    skew, ratio = third / own**3, mean / own
    hall = ratio + skew * ratio**2 / 3 + skew**2 * ratio**3 / 27 + skew / (6 * n)
    usual, wide = (float(stdtrit(n - 1, level)) for level in (0.975, 0.995))
    t = mean / sd * np.sqrt(n)
    return {
        "t": (t, usual),
        "johnson": (johnson / sd * np.sqrt(n), usual),
        "hall": (hall * np.sqrt(n - 1), usual),
        "t99": (t, wide),
    }


def measure_coverage(draws: int, seeds: tuple[int, ...] = (3, 5), seed: int = 0) -> Iterator[dict[str, str | float]]:
    """Rows of SCHEMA, as shares of `draws`. power: for normal differences with mean FOUND."""
    for n in seeds:
        generator = np.random.default_rng(seed)
        moved = simulate_statistics(generator.normal(size=(draws, n)) + FOUND)
        power = {name: float((value > critical).mean()) for name, (value, critical) in moved.items()}
        statistics = {family: simulate_statistics(draw(generator, (draws, n))) for family, draw in FAMILIES.items()}
        for name in power:
            for family, by_interval in statistics.items():
                value, critical = by_interval[name]
                high, low = float((value > critical).mean()), float((value < -critical).mean())
                shares = {"covered": 1 - high - low, "too_high": high, "too_low": low, "power": power[name]}
                yield {"seeds": n, "interval": name, "family": family} | shares


def format_table(table: pl.DataFrame) -> str:
    """The table in aligned columns, in percent."""
    lines = [["seeds", "interval", "differences", "covered", "decided too high", "too low", f"mean {FOUND} sd found"]]
    for seeds, name, family, *shares in table.iter_rows():
        lines.append([str(seeds), name, family, *(f"{100 * share:.1f} %" for share in shares)])
    return align_columns(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.statistics.coverage", description=__doc__)
    parser.add_argument("--draws", type=int, default=400_000, metavar="N", help="of every row (default: 400000)")
    args = parser.parse_args()
    print(format_table(pl.DataFrame(list(measure_coverage(args.draws)), schema=SCHEMA, orient="row")))


if __name__ == "__main__":
    main()
