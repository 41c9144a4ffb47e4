"""Correlation of two numbers over runs, each an arm with a seed, with a bootstrap interval and a permutation p-value.

Runs are not independent samples: seeds of an arm are similar, and the runs of a seed share their start. So the
bootstrap draws arms and seeds, both with replacement, and a run counts as often as both were drawn together (Owen's
pigeonhole bootstrap, conservative for crossed clusters). The permutation moves the outcomes of a whole arm to another
arm (or of a whole seed to another seed), never of single runs.

A resample is a weight per run. Pearson's coefficient is that of the weighted moments, Spearman's is Pearson's of the
ranks in the resample, equal values sharing theirs.
"""

import math
from typing import Literal, get_args

import numpy as np

Coefficient = Literal["pearson", "spearman"]
COEFFICIENTS: tuple[Coefficient, ...] = get_args(Coefficient)
DRAWS, PERMUTATIONS = 2000, 9999


def spearman_and_pearson(x: np.ndarray, y: np.ndarray, coefficient: Coefficient) -> float:
    """The correlation of x and y [runs]; NaN if one does not vary."""
    return float(_correlation(x, y, np.ones((1, len(x))), coefficient)[0])


def bootstrap_interval(
    x: np.ndarray, y: np.ndarray, arms: np.ndarray, seeds: np.ndarray, coefficient: Coefficient, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile interval over arms and seeds [runs]; None if x or y is constant in most resamples."""
    rng = np.random.default_rng(0)
    weight = _draw_counts(arms, rng) * _draw_counts(seeds, rng)
    weight = weight[weight.sum(1) > 0]
    coefficients = _correlation(x, y, weight, coefficient)
    coefficients = coefficients[np.isfinite(coefficients)]
    if 2 * len(coefficients) < DRAWS:
        return None
    low, high = np.percentile(coefficients, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def count_arrangements(units: np.ndarray, cells: np.ndarray) -> int:
    """The number n of ways to exchange whole units; p is at least 1/n."""
    return math.prod(math.factorial(len(rows)) for rows in _exchangeable(units, cells))


def permutation_p(
    x: np.ndarray, y: np.ndarray, units: np.ndarray, cells: np.ndarray, coefficient: Coefficient
) -> float:
    """Two-sided p: the share of exchanges of whole units with at least the same |correlation|; the data counts once.

    units, cells: of every run; one run per pair. Units with the same cells are exchanged; if no two units have the
    same cells (`count_arrangements` is 1), p is 1.
    """
    rng, weights = np.random.default_rng(0), np.ones((1, len(x)))
    if coefficient == "spearman":
        x, y = _ranks(x, weights)[0], _ranks(y, weights)[0]
    shuffled = np.tile(y, (PERMUTATIONS, 1))
    for rows in _exchangeable(units, cells):  # [units, cells], places of runs
        order = rng.permuted(np.tile(np.arange(len(rows)), (PERMUTATIONS, 1)), axis=1)
        shuffled[:, rows.ravel()] = y[rows[order]].reshape(PERMUTATIONS, -1)
    shuffled_coefficients, seen = _pearson(x, shuffled, weights), _pearson(x, y, weights)[0]
    # Equal arrangements may differ in the last bits.
    return float((1 + np.sum(np.abs(shuffled_coefficients) >= abs(seen) - 1e-9)) / (1 + PERMUTATIONS))


def _exchangeable(units: np.ndarray, cells: np.ndarray) -> list[np.ndarray]:
    groups: dict[tuple, list[np.ndarray]] = {}
    for unit in np.unique(units):
        rows = np.flatnonzero(units == unit)
        rows = rows[np.argsort(cells[rows])]
        groups.setdefault(tuple(cells[rows]), []).append(rows)
    return [np.array(rows) for rows in groups.values()]


def _draw_counts(clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How often each run's cluster was drawn, [DRAWS, runs]."""
    names, place = np.unique(clusters, return_inverse=True)
    return rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)[:, place].astype(float)


def _correlation(x: np.ndarray, y: np.ndarray, weight: np.ndarray, coefficient: Coefficient) -> np.ndarray:
    if coefficient == "spearman":
        return _pearson(_ranks(x, weight), _ranks(y, weight), weight)
    return _pearson(x, y, weight)


def _pearson(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Along the last axis, [..., runs]."""
    total = weight.sum(-1, keepdims=True)
    x = x - (weight * x).sum(-1, keepdims=True) / total
    y = y - (weight * y).sum(-1, keepdims=True) / total
    own = (weight * x * x).sum(-1), (weight * y * y).sum(-1)
    # Squares that should be zero are rounding errors.
    flat = np.minimum(*own) <= 1e-24 * total[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flat, np.nan, (weight * x * y).sum(-1) / np.sqrt(own[0] * own[1]))


def _ranks(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mid-ranks of x [runs] in every resample of weights [draws, runs], up to a constant."""
    below = (x[None] < x[:, None]) + 0.5 * (x[None] == x[:, None])
    return weight @ below.T
