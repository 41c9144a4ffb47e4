"""Bands and trips: closed forms, coverage on simulated references, and what there is no verdict on."""

import math

import numpy as np
import polars as pl
import pytest
from scipy.stats import t as student

from pipelines.regimes import bands, calibration
from pipelines.regimes.readings import READINGS
from tests.pipelines.planted import STORY

NORMS = tuple(0.001 * 1.5**i for i in range(12))


def run(value, *, seed=0, recipe="s.ref", quantity="stable_rank", norms=NORMS, view="master", steps=None):
    """Readings of one quantity; value: a number, or a function of the norm."""
    measured = value if callable(value) else lambda norm: value
    steps = steps or range(1, len(norms) + 1)
    rows = [(recipe, seed, step, view, n, quantity, measured(n)) for step, n in zip(steps, norms, strict=True)]
    return pl.DataFrame(rows, schema=READINGS, orient="row")


def references(*values, **changes):
    return pl.concat([run(value, seed=seed, **changes) for seed, value in enumerate(values)])


def verdicts(found, STORY):
    return found.sort("step")["inside"].to_list()


@pytest.mark.parametrize(("quantity", "scale"), [("stable_rank", np.log), ("similarity_previous", lambda x: x)])
def test_the_band_is_the_prediction_interval_of_one_more_run(quantity, scale):
    values = (0.5, 0.52, 0.55, 0.51, 0.53)
    band = bands.calibrate_bands(references(*values, quantity=quantity))["master", quantity]
    y = scale(np.array(values))
    # One band of 12 snapshots: three looks with ten degrees of freedom ask for more than one with four.
    critical = max(student.ppf(0.975, 4), student.ppf(1 - 0.025 / 3, 10))
    half = band.widen * critical * y.std(ddof=1) * math.sqrt(1 + 1 / 5)
    limits = band.interval_at(NORMS[5])
    assert limits is not None
    low, high, count = limits
    assert count == 5
    assert (scale(low), scale(high)) == pytest.approx((y.mean() - half, y.mean() + half))


def test_references_are_interpolated_in_the_logarithm_of_the_norm():
    level = lambda norm: math.exp(math.log(norm / 0.001))
    band = bands.calibrate_bands(references(level, level))["master", "stable_rank"]
    between = math.sqrt(NORMS[3] * NORMS[4])
    assert band.interval_at(between)[:2] == pytest.approx((level(between), level(between)))


def test_a_similarity_stays_within_zero_and_one():
    band = bands.calibrate_bands(references(0.99, 0.9, quantity="similarity_previous"))["master", "similarity_previous"]
    assert band.interval_at(NORMS[0]) == (0.0, 1.0, 2)


def test_the_norm_is_compared_at_the_same_step():
    growing = [lambda n, c=c: c * n for c in (1.0, 1.1, 1.2)]
    found = bands.calibrate_bands(references(*growing, quantity="relative_norm"))
    assert (
        found["master", "relative_norm"].interval_at(1.0).low
        < 0.0011
        < found["master", "relative_norm"].interval_at(1.0).high
    )
    slow = run(lambda n: n / 2, recipe="s.slow", quantity="relative_norm", norms=tuple(n / 2 for n in NORMS))
    assert verdicts(bands.judge_readings(slow, found), STORY) == [False] * 12


def test_where_fewer_than_two_references_reach_there_is_no_verdict():
    short = run(3.1, seed=1, norms=NORMS[:6])
    found = bands.calibrate_bands(pl.concat([run(3.0), short]))
    judged = bands.judge_readings(run(3.05, recipe="s.new"), found)
    assert verdicts(judged, STORY) == [True] * 6 + [None] * 6
    assert judged["references"].to_list() == [2] * 6 + [None] * 6
    assert judged["reason"][0] is None and "outside calibration" in judged["reason"][11]
    below = bands.judge_readings(run(3.05, recipe="s.new", norms=[n / 1e3 for n in NORMS]), found)
    assert verdicts(below, STORY) == [None] * 12 and bands.find_trips(below) == []


def test_a_third_reference_that_ends_early_leaves_the_band_of_two():
    three = pl.concat([run(3.0), run(3.1, seed=1), run(3.2, seed=2, norms=NORMS[:6])])
    judged = bands.judge_readings(run(3.05, recipe="s.new"), bands.calibrate_bands(three))
    assert judged["references"].to_list() == [3] * 6 + [2] * 6


def test_only_the_way_up_counts_where_a_norm_turns_back():
    norms = (0.001, 0.002, 0.004, 0.003, 0.002, 0.008)
    values = (1.0, 2.0, 3.0, 99.0, 99.0, 4.0)
    back = [run(3.0, seed=seed, norms=norms).with_columns(value=pl.Series(values)) for seed in (0, 1)]
    band = bands.calibrate_bands(pl.concat(back))["master", "stable_rank"]
    assert band.interval_at(0.004)[:2] == pytest.approx((3.0, 3.0)) and band.interval_at(0.008)[:2] == pytest.approx(
        (4.0, 4.0)
    )


def test_a_crossing_of_two_references_is_no_narrow_band():
    tilt = 0.2
    up = lambda n: 3 * (n / NORMS[6]) ** tilt
    down = lambda n: 3 * (n / NORMS[6]) ** -tilt
    band = bands.calibrate_bands(references(up, down))["master", "stable_rank"]
    at = band.interval_at(NORMS[6])  # where both are 3
    # Variance of two values +-d of a logarithm is 2 d^2, meaned over the curves, which is more than about the crossing.
    away = (np.log(NORMS) - np.log(NORMS[6])) * tilt
    expected = student.ppf(0.975, 1) * math.sqrt(np.mean(2 * away**2) * 1.5)
    assert math.log(at.high / 3) == pytest.approx(expected)
    # Where they are farther apart than on the whole, what is near counts: at the last norm, from half of it on.
    near = np.log(2) * np.linspace(-1, 0, 5) + np.log(NORMS[11] / NORMS[6])
    expected = student.ppf(0.975, 1) * math.sqrt(np.mean(2 * (near * tilt) ** 2) * 1.5)
    assert math.log(band.interval_at(NORMS[11]).high / 3) == pytest.approx(expected)


def test_references_whose_seeds_disagree_beyond_students_t_widen_the_band():
    # Nine close runs, then one far away, which a band of the nine does not expect.
    generator = np.random.default_rng(0)
    steady = [3.0 + 0.01 * x for x in generator.standard_normal(9)]
    calm = bands.calibrate_bands(references(*steady))["master", "stable_rank"]
    wild = bands.calibrate_bands(references(*steady, 4.0))["master", "stable_rank"]
    assert calm.widen < 3 and wild.widen > 10
    assert wild.interval_at(NORMS[3]).low < 4.0 < wild.interval_at(NORMS[3]).high


def simulated(generator, seeds, spread=0.1):
    """Runs with a level of their own and a slow wave, as seeds of one recipe have."""
    parts = []
    for seed in range(seeds):
        level, phase, size = generator.normal(1, spread), generator.uniform(0, 6), generator.normal(0, spread)
        wave = lambda n, level=level, phase=phase, size=size: math.exp(level + size * math.sin(phase + math.log(n)))
        parts.append(run(wave, seed=seed))
    return pl.concat(parts)


def test_new_runs_lie_inside_at_about_the_nominal_rate():
    generator = np.random.default_rng(1)
    inside, tripped, worlds = [], 0, 60
    for _ in range(worlds):
        runs = simulated(generator, 4)
        judged = bands.judge_readings(runs.filter(seed=3), bands.calibrate_bands(runs.filter(pl.col("seed") < 3)))
        inside += [verdict for verdict in verdicts(judged, STORY) if verdict is not None]
        tripped += bool(bands.find_trips(judged))
    # Snapshots of a run are no independent trials: 60 runs know the rate to about 3 %.
    assert np.mean(inside) == pytest.approx(0.95, abs=0.05)
    assert tripped / worlds < 0.15


@pytest.mark.parametrize("correlation", [0.9, 0.99])
def test_of_healthy_runs_left_out_whole_at_most_one_in_twenty_trips(correlation):
    # 5 quantities in 2 views, 20 correlated snapshots, bands of three references; 4 runs of 20 worlds, each left out.
    generator = np.random.default_rng(7)
    tripped = 0
    for _ in range(20):
        found = bands.left_out(calibration.as_readings(calibration.simulate_values(generator, 4, correlation)))
        assert found.select("view", "quantity").n_unique() == 10 and set(found["snapshots"]) == {20}
        tripped += found.filter("tripped")["seed"].n_unique()
    assert tripped <= 0.05 * 80


def test_a_level_is_shared_by_the_bands_that_decide():
    three = calibration.as_readings(calibration.simulate_values(np.random.default_rng(8), 3, 0.9))
    every, few = bands.calibrate_bands(three), bands.calibrate_bands(three, deciding=5)
    assert {band.level for band in every.values()} == {1 - 0.05 / 10} and {b.level for b in few.values()} == {0.99}
    one, other = (
        found["master", "stable_rank"].expected_interval(np.log(calibration.NORMS))[1] for found in (every, few)
    )
    assert one / other == pytest.approx(student.ppf(1 - 0.0025, 2) / student.ppf(1 - 0.005, 2))


def test_a_run_that_moves_far_enough_is_found():
    rates = calibration.trip_rates(5, 0.9, runs=8)
    assert rates["tripped"] == 0.0 and rates["found_40"] == 1.0
    table = pl.DataFrame([{"references": 5, "correlation": 0.9, "runs": 8} | rates], schema=calibration.SCHEMA)
    assert "100.0 %" in calibration.format_table(table)


def test_references_left_out_are_judged_by_the_others():
    found = bands.left_out(simulated(np.random.default_rng(2), 5))
    assert found["seed"].to_list() == [0, 1, 2, 3, 4]
    assert set(found["snapshots"]) == {12} and found["inside"].sum() >= 0.8 * 60
    far = bands.left_out(references(3.0, 3.01, 3.02, 3.03, 6.0))
    assert far.filter(seed=4)["inside"].to_list() == [0] and far.filter(seed=4)["tripped"].to_list() == [True]


def judged(*inside, quantity="stable_rank"):
    rows = run(3.0, norms=NORMS[: len(inside)], quantity=quantity)
    return rows.with_columns(inside=pl.Series(inside, dtype=pl.Boolean()), low=pl.lit(1.0), high=pl.lit(2.0))


@pytest.mark.parametrize(
    ("inside", "step"),
    [
        ((True, True, True), None),
        ((True, False, True, False), None),
        ((True, False, False, True), 3),
        ((False, False, False), 2),
        ((False, None, False), None),
        ((None, None, False, False), 4),
        ((False,), None),
    ],
)
def test_two_consecutive_snapshots_outside_trip(inside, step):
    found = bands.find_trips(judged(*inside))
    assert [trip.step for trip in found] == ([] if step is None else [step])
    assert all((trip.quantity, trip.value, trip.low, trip.high) == ("stable_rank", 3.0, 1.0, 2.0) for trip in found)


def test_quantities_do_not_help_each_other_to_trip_and_the_first_comes_first():
    one, other = judged(False, True, False, False), judged(True, False, False, True, quantity="similarity_previous")
    assert [(trip.step, trip.quantity) for trip in bands.find_trips(pl.concat([one, other]))] == [
        (3, "similarity_previous"),
        (4, "stable_rank"),
    ]
    alternating = pl.concat([judged(False, True), judged(True, False, quantity="similarity_previous")])
    assert bands.find_trips(alternating) == []


def test_one_reference_is_no_band():
    with pytest.raises(ValueError, match="two reference runs or more, and there is 1"):
        bands.calibrate_bands(run(3.0))


def test_a_view_without_references_has_no_verdict():
    found = bands.judge_readings(run(3.0, view="bf16"), bands.calibrate_bands(references(3.0, 3.1)))
    assert verdicts(found, STORY) == [None] * 12


def test_a_value_that_is_missing_says_so():
    rows = run(3.0).with_columns(value=pl.when(pl.col("step") > 1).then("value"))
    found = bands.judge_readings(rows, bands.calibrate_bands(references(3.0, 3.1)))
    assert verdicts(found, STORY) == [None, *[True] * 11] and found["reason"][0] == "no value at this step"
