"""Simulate how often healthy and deviating runs trip the bands of `bands`. `python -m` prints the table.

A run is `SNAPSHOTS` snapshots of every quantity in two views. Each is a level plus `SPREAD` times a standard normal
process along the snapshots, z_i = r z_{i-1} + sqrt(1 - r^2) e_i, independent between quantities and views: at r = 0
snapshots are independent, at r = 1 runs keep a constant distance. A deviating run has one quantity shifted by a number
of standard deviations from the middle of the run on. Not simulated: spreads that grow along a run, quantities that
depend on each other (fewer trips), other distributions.
"""

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from pipelines.regimes import bands
from pipelines.regimes.readings import QUANTITIES, READINGS
from pipelines.statistics.numbers import align_columns

VIEWS = ("bf16", "master")
SNAPSHOTS = 20
NORMS = 0.001 * 1.5 ** np.arange(SNAPSHOTS)
SPREAD = 0.03  # of a logarithm, or of a similarity about 0.7
CORRELATIONS = (0.0, 0.9, 0.99, 1.0)
REFERENCES = (2, 3, 5, 10)
DEVIATIONS = (5.0, 10.0, 20.0, 40.0)  # standard deviations over runs
SCHEMA = pl.Schema(
    {"references": pl.Int64(), "correlation": pl.Float64(), "runs": pl.Int64(), "tripped": pl.Float64()}
    | {f"found_{size:g}": pl.Float64() for size in DEVIATIONS}
)


def simulate_values(generator: np.random.Generator, runs: int, correlation: float) -> np.ndarray:
    """[runs, bands, SNAPSHOTS] standard normal values; bands are quantities by views."""
    shape = (runs, len(QUANTITIES) * len(VIEWS), SNAPSHOTS)
    values = generator.normal(size=shape)
    for step in range(1, SNAPSHOTS):
        fresh = (1 - correlation**2) ** 0.5 * values[..., step]
        values[..., step] = correlation * values[..., step - 1] + fresh
    return values


def as_readings(values: np.ndarray) -> pl.DataFrame:
    """Values of `simulate_values` as readings of runs of one recipe, with seeds from 0."""
    parts = []
    for seed, run in enumerate(values):
        for (view, quantity), curve in zip(_bands(), run, strict=True):
            positive = quantity in bands.POSITIVE
            value = np.exp(1 + SPREAD * curve) if positive else 0.7 + SPREAD * curve
            columns = {"step": np.arange(1, SNAPSHOTS + 1), "relative_norm": NORMS, "value": value}
            keys = {"recipe": "s.run", "seed": seed, "view": view, "quantity": quantity}
            parts.append(pl.DataFrame(columns).with_columns(pl.lit(key).alias(name) for name, key in keys.items()))
    return pl.concat(parts).select(READINGS.names()).cast(dict(READINGS))


def simulate_moved_run(run: np.ndarray, size: float) -> np.ndarray:
    """A run [1, bands, SNAPSHOTS] with its first quantity moved in every view, from the middle on."""
    moved = [quantity == QUANTITIES[0] for _, quantity in _bands()]
    values = run.copy()
    values[0, moved, SNAPSHOTS // 2 :] += size
    return values


def trip_rates(references: int, correlation: float, runs: int, seed: int = 0) -> dict[str, float]:
    """Shares of `runs` worlds in which one more run trips: tripped of a healthy one, found_<size> of a moved one."""
    generator = np.random.default_rng(seed)
    counts = dict.fromkeys(("tripped", *(f"found_{size:g}" for size in DEVIATIONS)), 0)
    for _ in range(runs):
        values = simulate_values(generator, references + 1, correlation)
        calibrated = bands.calibrate_bands(as_readings(values[1:]))
        new = {"tripped": values[:1]} | {f"found_{size:g}": simulate_moved_run(values[:1], size) for size in DEVIATIONS}
        for name, run in new.items():
            counts[name] += bool(bands.find_trips(bands.judge_readings(as_readings(run), calibrated)))
    return {name: count / runs for name, count in counts.items()}


def calibration_rows(
    runs: int, references: Sequence[int] = REFERENCES, correlations: Sequence[float] = CORRELATIONS
) -> Iterator[dict[str, float]]:
    """Rows of SCHEMA, one per number of references and correlation."""
    for count in references:
        for correlation in correlations:
            rates = trip_rates(count, correlation, runs)
            yield {"references": count, "correlation": correlation, "runs": runs} | rates


def format_table(table: pl.DataFrame) -> str:
    """The table in aligned columns, shares in percent."""
    heading = ["references", "correlation of snapshots", "runs", "healthy runs that trip"]
    lines = [heading + [f"moved by {size:g} sd" for size in DEVIATIONS]]
    for count, correlation, runs, *rates in table.iter_rows():
        lines.append([str(count), f"{correlation:g}", str(runs), *(f"{100 * rate:.1f} %" for rate in rates)])
    return align_columns(lines)


def _bands() -> list[bands.Key]:
    return [(view, quantity) for view in VIEWS for quantity in QUANTITIES]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.regimes.calibration", description=__doc__)
    parser.add_argument("--runs", type=int, default=400, metavar="N", help="of every row (default: 400)")
    args = parser.parse_args()
    print(format_table(pl.DataFrame(list(calibration_rows(args.runs)), schema=SCHEMA, orient="row")))


if __name__ == "__main__":
    main()
