"""Power: the smallest difference in accuracy that a number of seeds, problems and samples can show.

A run's accuracy is a mean over P problems of m samples each. With p_i the chance of solving problem i, its variance is
(between + within / m) / P, where between = Var(p_i) and within = E[p_i (1 - p_i)], which sum to p (1 - p) for mean p.
The stored standard error and accuracy give both, if m > 1. All runs of a study answer the same problems, so the spread
over seeds holds no variance between problems: s^2 = seeds + within / (P m).

Verdicts on accuracies use all three variances (`pooled_half_width`). The spread over seeds counts as at least the
spread that sampling alone causes, so a spread that is small by chance does not decide.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev

import polars as pl
from scipy.special import ndtri, stdtrit

from pipelines.statistics.copies import find_copies
from pipelines.statistics.numbers import PLUS_MINUS
from pipelines.statistics.samples import arm_rows, drop_runs, final_step
from pipelines.studies.story import Story

POWER, LEVEL = 0.80, 0.95
PLANNED = (5, 10)  # seeds that a reader may think of adding


@lru_cache
def noncentrality(n: int, power: float, level: float) -> float:
    """The noncentrality at which a t test of n values rejects with probability `power`; the far tail is below 1e-6."""
    from scipy.optimize import root_scalar  # here, since scipy.stats takes a second to import
    from scipy.stats import nct

    critical = stdtrit(n - 1, (1 + level) / 2)
    high = 1.0
    while nct.sf(critical, n - 1, high) < power:
        high *= 1.5
    return root_scalar(lambda shift: nct.sf(critical, n - 1, shift) - power, bracket=(0.0, high), method="brentq").root


def detectable_mean(sd: float, n: int, power: float = POWER, level: float = LEVEL) -> float | None:
    """The smallest mean of n paired differences with standard deviation `sd` that a t test finds with probability
    `power` at 1 - level, two-sided: 3.26 sd for three seeds, 1.68 for five. None for one seed.

    `sd` is itself estimated from the n differences: of three it is uncertain by a factor of about two.
    """
    return noncentrality(n, power, level) * sd / math.sqrt(n) if n > 1 else None


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Variances of an accuracy (fractions squared), from runs that differ only in their seed."""

    within: float  # of a sample about its problem's chance, E[p_i (1 - p_i)]
    between: float  # of the problems' chances, Var(p_i)
    seeds: float | None  # of the run's own accuracy over seeds; None for one seed

    def half(self, problems: int, samples: int, seeds: int, level: float = LEVEL) -> float | None:
        """Half-width for the mean of `seeds` runs on `problems` x `samples`, as an estimate for the whole task.

        sqrt(t^2 (seeds + within / (P m)) / S + z^2 between / P), t with S - 1 degrees of freedom: more seeds do not
        shrink the part of the problems, which all seeds share. None for one seed.
        """
        runs = self.half_of_seeds(problems, samples, seeds, level)
        z = float(ndtri((1 + level) / 2))
        return None if runs is None else math.hypot(runs, z * math.sqrt(self.between / problems))

    def half_of_seeds(self, problems: int, samples: int, seeds: int, level: float = LEVEL) -> float | None:
        """The half-width for exactly these problems: the part that an interval over seeds contains. None for one
        seed."""
        if self.seeds is None or seeds < 2:
            return None
        t = float(stdtrit(seeds - 1, (1 + level) / 2))
        return t * math.sqrt((self.seeds + self.within / (problems * samples)) / seeds)


def estimate_spread(accuracies: Sequence[float], stderrs: Sequence[float], problems: int, samples: int) -> Spread:
    """The variances behind runs with these accuracies and standard errors over problems, one a seed.

    With one sample per problem, within and between cannot be separated; then all of p (1 - p) counts as between, which
    is the larger of the two in `Spread.half`. Estimates below zero are set to zero.
    """
    total = fmean(p * (1 - p) for p in accuracies)
    between = total
    if samples > 1:
        seen = problems * fmean(error**2 for error in stderrs)
        between = min(total, max(0.0, (seen - total / samples) / (1 - 1 / samples)))
    within = total - between
    if len(accuracies) < 2:
        return Spread(within=within, between=between, seeds=None)
    seeds = max(0.0, stdev(accuracies) ** 2 - within / (problems * samples))
    return Spread(within=within, between=between, seeds=seeds)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The evaluations of one side of a comparison: variances, problems and samples."""

    spread: Spread
    problems: int
    samples: int

    @property
    def sampling(self) -> float:
        """Variance of one run's accuracy on these problems from sampling alone."""
        return self.spread.within / (self.problems * self.samples)

    @property
    def drawing(self) -> float:
        """Variance of any run's accuracy from which problems were drawn, which all seeds share."""
        return self.spread.between / self.problems


def score_arm(accuracies: Sequence[float], stderrs: Sequence[float | None], problems: int, samples: int) -> Scored:
    """From one arm's evaluations, one a seed. Without a standard error all of p (1 - p) counts as between problems."""
    finite = [error for error in stderrs if error is not None]
    parts = estimate_spread(accuracies, finite, problems, samples if finite else 1)
    return Scored(spread=parts, problems=problems, samples=samples)


def pooled_half_width(differences: Sequence[float], sides: Sequence[Scored], level: float = LEVEL) -> float | None:
    """Half-width for the mean of paired differences of accuracies, over seeds, samples and problems.

        sqrt(max(t s, z sqrt(within / (P m)))^2 / n + z^2 between / P)

    s: the spread over the n seeds, at least the spread of sampling alone; within and between are
    summed over the sides. The problems of the sides count as independent, which gives a wide interval where both sides
    find the same problems hard. None for one seed.
    """
    n = len(differences)
    if n < 2:
        return None
    t, z = float(stdtrit(n - 1, (1 + level) / 2)), float(ndtri((1 + level) / 2))
    seeds = max(t * stdev(differences), z * math.sqrt(sum(side.sampling for side in sides)))
    return math.hypot(seeds / math.sqrt(n), z * math.sqrt(sum(side.drawing for side in sides)))


def pooled_detectable(differences: Sequence[float], sides: Sequence[Scored]) -> float | None:
    """The smallest mean difference of accuracies that `pooled_half_width` finds with about 80 % power; None for one
    seed.

    The root of the sum of squares of two parts: `detectable_mean` of the spread over seeds (at least that of sampling),
    and the normal detectable difference of the problems.
    """
    n = len(differences)
    if n < 2:
        return None
    z = float(ndtri((1 + LEVEL) / 2) + ndtri(POWER))
    over = max(noncentrality(n, POWER, LEVEL) * stdev(differences), z * math.sqrt(sum(side.sampling for side in sides)))
    return math.hypot(over / math.sqrt(n), z * math.sqrt(sum(side.drawing for side in sides)))


SCHEMA = pl.Schema(
    {
        "arm": pl.String(),
        "problems": pl.Int64(),
        "samples": pl.Int64(),
        "seeds": pl.Int64(),
        "within_sd": pl.Float64(),
        "between_sd": pl.Float64(),
        "seed_sd": pl.Float64(),
        "half_problems": pl.Float64(),
        "half_seeds": pl.Float64(),
        "half": pl.Float64(),
        **{f"half_{n}": pl.Float64() for n in PLANNED},
        "detectable": pl.Float64(),
    }
)


def power_rows(
    tables: Mapping[str, pl.LazyFrame], arms: Sequence[str], reference: str | None, temperature: float = 1.0
) -> pl.DataFrame:
    """One row per arm with a final accuracy at `temperature`, all as fractions; null where one seed gives no value.

    within_sd, between_sd, seed_sd: square roots of `Spread`; half_problems: of one run, over problems (z); half_seeds:
    over seeds on these problems; half: both (`Spread.half`), and half_5, half_10 with as many seeds; detectable: the
    smallest difference from `reference` that a verdict on the common seeds finds with 80 % power.
    """
    rows = arm_rows(tables, "evaluation", arms).with_columns(final=final_step("evaluation"))
    frame = rows.filter(
        pl.col("temperature") == temperature,
        pl.col("step") == pl.col("final"),
        pl.col("step") > 0,
        pl.col("stderr").is_not_null(),
    ).sort("arm", "seed")
    scores = drop_runs(frame.collect(), find_copies(tables, arms))
    base = scores.filter(pl.col("arm") == reference)
    against = None if base.is_empty() else _score_final(base)
    powers = []
    for arm in arms:
        arm_scores = scores.filter(pl.col("arm") == arm)
        if arm_scores.is_empty():
            continue
        side, seeds, detected = _score_final(arm_scores), arm_scores.height, None
        parts, problems, samples = side.spread, side.problems, side.samples
        pairs = arm_scores.join(base, on="seed", suffix="_reference")
        if arm != reference and against is not None:
            differences = (pairs["accuracy"] - pairs["accuracy_reference"]).to_list()
            detected = pooled_detectable(differences, [side, against])
        powers.append(
            {
                "arm": arm,
                "problems": problems,
                "samples": samples,
                "seeds": seeds,
                "within_sd": math.sqrt(parts.within),
                "between_sd": math.sqrt(parts.between),
                "seed_sd": None if parts.seeds is None else math.sqrt(parts.seeds),
                "half_problems": float(ndtri((1 + LEVEL) / 2)) * fmean(arm_scores["stderr"].to_list()),
                "half_seeds": parts.half_of_seeds(problems, samples, seeds),
                "half": parts.half(problems, samples, seeds),
                **{f"half_{n}": parts.half(problems, samples, n) for n in PLANNED},
                "detectable": detected,
            }
        )
    return pl.DataFrame(powers, schema=SCHEMA, orient="row")


def _score_final(rows: pl.DataFrame) -> Scored:
    """Score the final evaluations of one arm."""
    return score_arm(rows["accuracy"].to_list(), rows["stderr"].to_list(), rows["problems"][0], rows["samples"][0])


def format_grid(table: pl.DataFrame, story: Story) -> list[list[str]]:
    """`power` as text: a heading row, then one row per arm, in points of accuracy."""
    heading = ["arm", "problems x samples", "seeds", "one run, over problems", "mean, over seeds", "both"]
    heading += [f"both, {n} seeds" for n in PLANNED] + ["difference found with 80 % power"]
    lines = [heading]
    for row in table.iter_rows(named=True):
        halves = [row[name] for name in ("half_problems", "half_seeds", "half", *(f"half_{n}" for n in PLANNED))]
        lines.append(
            [
                story.label(row["arm"]),
                f"{row['problems']} x {row['samples']}",
                str(row["seeds"]),
                *("-" if half is None else f"{PLUS_MINUS} {100 * half:.1f}" for half in halves),
                "-" if row["detectable"] is None else f"{100 * row['detectable']:.1f}",
            ]
        )
    return lines
