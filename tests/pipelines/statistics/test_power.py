"""How small a difference can be shown: closed forms, simulated tests, and variances found again."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import ttest_1samp

from pipelines.statistics.power import (
    SCHEMA,
    Spread,
    detectable_mean,
    estimate_spread,
    format_grid,
    pooled_detectable,
    pooled_half_width,
    power_rows,
    score_arm,
)
from tests.pipelines.planted import STORY


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_difference_of_that_size_is_found_in_80_percent_of_cases(seeds):
    shift = detectable_mean(2.0, seeds)
    assert shift is not None
    draws = np.random.default_rng(1).normal(shift, 2.0, size=(20_000, seeds))
    _, p = ttest_1samp(draws, 0.0, axis=1)
    found = p < 0.05
    assert found.mean() == pytest.approx(0.80, abs=0.01)  # three standard errors of 20,000 draws


def test_the_factors_of_the_docstring():
    assert detectable_mean(1.0, 3) == pytest.approx(3.26, abs=0.005)
    assert detectable_mean(1.0, 5) == pytest.approx(1.68, abs=0.005)
    # Normal theory: (1.960 + 0.842) / sqrt(n).
    assert detectable_mean(1.0, 1000) == pytest.approx(2.802 / np.sqrt(1000), rel=0.005)


def test_one_seed_detects_nothing_and_no_spread_detects_all():
    assert detectable_mean(1.0, 1) is None
    assert detectable_mean(0.0, 3) == 0.0


def simulated(chances, samples, shifts, generator):
    """Accuracies and standard errors of runs that answer the same problems; each seed shifts every chance alike."""
    accuracies, errors = [], []
    for shift in shifts:
        scores = generator.binomial(samples, np.clip(chances + shift, 0, 1)) / samples
        accuracies.append(float(scores.mean()))
        errors.append(float(scores.std(ddof=1) / np.sqrt(len(scores))))
    return accuracies, errors


def test_the_variances_behind_simulated_runs_are_found_again():
    generator = np.random.default_rng(3)
    chances = generator.uniform(0.3, 0.7, size=2000)
    shifts = generator.normal(0, 0.03, 40)
    found = estimate_spread(*simulated(chances, 8, shifts, generator), problems=2000, samples=8)
    assert found.between == pytest.approx(chances.var(), rel=0.1)
    assert found.within == pytest.approx((chances * (1 - chances)).mean(), rel=0.02)
    # Sampling adds 0.003 to a shift of 0.03, a tenth of it.
    assert found.seeds == pytest.approx(shifts.var(ddof=1), rel=0.1)


def test_runs_that_differ_by_sampling_alone_have_no_seed_variance_to_speak_of():
    generator = np.random.default_rng(4)
    found = estimate_spread(*simulated(np.full(400, 0.5), 4, np.zeros(50), generator), problems=400, samples=4)
    assert found.seeds < 0.3 * 0.25 / 1600
    assert found.between < 0.02


def test_one_sample_a_problem_counts_all_as_between():
    found = estimate_spread([0.5, 0.5], [0.05, 0.05], problems=100, samples=1)
    assert (found.between, found.within, found.seeds) == (0.25, 0.0, 0.0)


def test_the_half_width_in_closed_form():
    parts = Spread(within=0.16, between=0.04, seeds=0.0009)
    runs = 4.302653 * np.sqrt((0.0009 + 0.16 / 400) / 3)  # t quantile with 2 degrees of freedom
    assert parts.half_of_seeds(100, 4, 3) == pytest.approx(runs)
    assert parts.half(100, 4, 3) == pytest.approx(np.hypot(runs, 1.959964 * np.sqrt(0.04 / 100)))
    assert parts.half(100, 4, 1) is None
    assert Spread(within=0.16, between=0.04, seeds=None).half(100, 4, 3) is None


def test_more_of_anything_narrows_it_and_seeds_do_not_beat_the_problems():
    parts = Spread(within=0.16, between=0.04, seeds=0.0009)
    base = parts.half(100, 4, 3)
    assert all(parts.half(*more) < base for more in ((200, 4, 3), (100, 8, 3), (100, 4, 5)))
    assert parts.half(100, 4, 10_000) > 1.95 * np.sqrt(0.04 / 100)


def variances(p, problems=100, samples=4, stderr=0.02):
    """within and between of an accuracy p with that standard error, solved by hand."""
    between = max(0.0, (problems * stderr**2 - p * (1 - p) / samples) / (1 - 1 / samples))
    return p * (1 - p) - between, between


def test_a_pooled_half_width_in_closed_form():
    sides = [score_arm([0.5, 0.5, 0.5], [0.05] * 3, 100, 1), score_arm([0.2, 0.2, 0.2], [None] * 3, 50, 4)]
    assert [(side.sampling, side.drawing) for side in sides] == [(0.0, 0.0025), (0.0, pytest.approx(0.16 / 50))]
    problems = 1.959964 * np.sqrt(0.0025 + 0.16 / 50)
    assert pooled_half_width([0.3, 0.3, 0.3], sides) == pytest.approx(problems)
    seeds = 4.302653 * 0.1 / np.sqrt(3)
    assert pooled_half_width([0.2, 0.3, 0.4], sides) == pytest.approx(np.hypot(seeds, problems))
    assert pooled_half_width([0.3], sides) is None and pooled_detectable([0.3], sides) is None


def test_pooled_intervals_cover_the_task_where_seeds_alone_do_not():
    generator = np.random.default_rng(6)
    covered, alone = 0, 0
    for _ in range(300):  # two arms of equal chances on the task, 3 seeds of 12 problems x 4 samples, no seed effect
        chances = generator.beta(1, 1, size=(2, 12))
        runs = [simulated(chance, 4, np.zeros(3), generator) for chance in chances]
        sides = [score_arm(*run, problems=12, samples=4) for run in runs]
        differences = [left - right for left, right in zip(runs[0][0], runs[1][0], strict=True)]
        covered += abs(np.mean(differences)) <= pooled_half_width(differences, sides)
        alone += abs(np.mean(differences)) <= 4.302653 * np.std(differences, ddof=1) / np.sqrt(3)
    assert covered / 300 >= 0.93 and alone / 300 < 0.75


def test_a_study_has_one_row_an_arm(tiny):
    table = power_rows(tiny, STORY.all_arms, "opd")
    assert table.schema == SCHEMA
    assert table["arm"].to_list() == ["sft", "opd", "rlvr", "sft-matched"]
    row = table.row(by_predicate=pl.col("arm") == "rlvr", named=True)
    assert (row["problems"], row["samples"], row["seeds"]) == (100, 4, 3)
    assert row["half_problems"] == pytest.approx(1.959964 * 0.02)
    # Planted: OPD 0.86 (1 + 0.002 (0, 1, -1)), RLVR 0.70 (1 + 0.002 (-1, 1, 0)) for seeds 0, 1, 2.
    differences = 0.002 * (0.70 * np.array([-1, 1, 0]) - 0.86 * np.array([0, 1, -1]))
    # The seeds spread by less than sampling makes: within / (P m) of both sides, then what the problems add.
    within, between = (np.array(parts) for parts in zip(*(variances(p) for p in (0.86, 0.70)), strict=True))
    assert differences.std(ddof=1) ** 2 < within.sum() / 400
    expected = (1.959964 + 0.841621) * np.sqrt(within.sum() / 400 / 3 + between.sum() / 100)
    assert row["detectable"] == pytest.approx(expected, rel=1e-3)
    assert table.filter(pl.col("arm") == "opd")["detectable"].to_list() == [None]


def test_one_seed_has_a_half_width_over_problems_only(smollm):
    table = power_rows(smollm, STORY.all_arms, "opd")
    assert table["half_problems"].null_count() == 0
    assert table["half"].is_null().all() and table["detectable"].is_null().all()
    assert format_grid(table, STORY)[1][3:] == ["\u00b1 3.9", "-", "-", "-", "-", "-"]


def test_the_text_holds_every_cell_and_nothing_gives_nothing(tiny):
    heading, *lines = format_grid(power_rows(tiny, STORY.all_arms, "opd"), STORY)
    assert [line[0] for line in lines] == ["SFT", "OPD", "RLVR", "sft-matched"] and len(heading) == len(lines[0])
    assert power_rows({}, STORY.all_arms, "opd").is_empty()
