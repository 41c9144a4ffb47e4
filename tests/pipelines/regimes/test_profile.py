"""Curves over the norm: matched where the lines say, never beyond their ends, and of the right rows."""

import math

import numpy as np
import polars as pl
import pytest

from pipelines.regimes.diagnostics import DIAGNOSTICS
from pipelines.regimes.profile import read_profiles


@pytest.fixture(scope="module")
def run(planted, plant):
    one = planted(recipe="tiny.opd", kind=1.0, objective="opd")
    return read_profiles(plant([one]), [("tiny.opd", 0)])["tiny.opd", 0, "bf16"]


def test_a_profile_has_the_run_its_norms_and_every_diagnostic(run):
    assert (run.study, run.recipe, run.seed, run.view, run.objective) == ("tiny", "tiny.opd", 0, "bf16", "opd")
    assert run.steps.tolist() == [1, 2, 4, 8, 16, 32, 64]
    assert run.norms == pytest.approx(1e-4 * run.steps)
    assert set(run.values) == {d.name for d in DIAGNOSTICS if d.share is None}
    assert all(np.isfinite(value).all() for value in run.values.values())
    assert run.shapes == {("q", 32.0), ("k", 32.0)}


def test_between_snapshots_a_straight_line_over_the_log_of_the_norm_is_met_exactly(run):
    point = run.point_at_norm(1.1e-3)
    growth = math.log(1.1)
    assert point.norm == pytest.approx(1.1e-3)
    assert point.values["rotation"] == pytest.approx(math.log(0.11) + 0.1)
    assert point.values["nss"] == pytest.approx(math.log(1.1e-4) + 0.1)
    assert point.values["unchanged"] == pytest.approx(0.6 - 0.05 * growth)
    assert point.values["stable_rank"] == pytest.approx(math.log(0.1) + 0.1 - 0.1 * growth)
    assert point.values["effective_rank"] == pytest.approx(math.log(0.5) + 0.1)
    assert point.values["hill"] == pytest.approx(math.log(1.5) + 0.1)
    assert point.values["principal"] == pytest.approx(0.4)
    assert 8 < point.step < 16


def test_at_a_snapshot_the_values_are_its_own(run):
    assert run.point_at_norm(float(run.norms[3])).step == 8
    assert run.point_at_norm(float(run.norms[-1])) == run.end()


def test_nothing_is_extrapolated(run):
    assert run.point_at_norm(0.99e-4) is None and run.point_at_norm(6.41e-3) is None


def test_a_size_is_where_it_was_first_reached(planted, plant):
    one = planted(recipe="tiny.opd", kind=1.0)
    tables = plant([one])
    fallen = tables["update_norm"].collect().to_dicts()
    for row in fallen:
        row["relative_norm"] *= 0.2 if row["step"] == 64 else 1.0
    frame = type(tables["update_norm"].collect())(fallen, schema=tables["update_norm"].collect_schema()).lazy()
    run = read_profiles(tables | {"update_norm": frame}, [("tiny.opd", 0)])["tiny.opd", 0, "master"]
    assert run.point_at_norm(1.28e-3).step < 16 and run.point_at_norm(3.3e-3) is None


def test_nulls_of_few_steps_give_what_those_of_all_give_where_they_are_straight(planted, plant, run):
    """It is interpolated linearly in log(step): one that is constant is met exactly."""
    tables = plant([planted(recipe="tiny.opd", kind=1.0, objective="opd")])
    few = tables | {"nulls": tables["nulls"].filter(pl.col("step").is_in([1, 4, 64]))}
    thinned = read_profiles(few, [("tiny.opd", 0)])["tiny.opd", 0, "bf16"]
    assert thinned.values["effective_rank"] == pytest.approx(run.values["effective_rank"])
    sparse = few | {"update_support": tables["update_support"].with_columns(unchanged=pl.lit(0.999))}
    own = read_profiles(sparse, [("tiny.opd", 0)])["tiny.opd", 0, "bf16"].values["effective_rank"]
    assert np.isfinite(own).tolist() == [True, False, True, False, False, False, True], "at its own steps alone"
    late = tables | {"nulls": tables["nulls"].filter(pl.col("step") >= 4)}
    cut = read_profiles(late, [("tiny.opd", 0)])["tiny.opd", 0, "bf16"].values["effective_rank"]
    assert np.isnan(cut[:2]).all() and np.isfinite(cut[2:]).all(), "before its first step there is no null"


def test_similarities_are_to_the_budget_and_need_a_snapshot_near_the_share(run):
    assert run.point_at_norm(float(run.norms[-1])).values["sim16_10"] == pytest.approx(
        0.5
    )  # step 8 of 64 is 2.5 points off
    assert math.isnan(run.point_at_norm(4e-4).values["sim16_10"])  # step 1 of 4 is 15 points off
    assert run.point_at_norm(4e-4).values["sim16_25"] == pytest.approx(0.5)
    assert math.isnan(run.point_at_norm(1e-4).values["sim16_25"])


def test_a_profile_can_end_at_an_earlier_snapshot_but_at_no_other_step(run):
    early = run.end_at(8)
    assert early.end() == run.point_at_norm(float(run.norms[3])) and len(early.steps) == 4
    with pytest.raises(ValueError, match=r"no measured step 9; it has: 1, 2, 4, 8, 16, 32, 64"):
        run.end_at(9)


def test_what_is_not_measured_is_nan_and_the_rest_stays(planted, plant):
    tables = plant([planted(recipe="tiny.opd", kind=1.0)])
    del tables["nulls"], tables["hill"]
    run = read_profiles(tables, [("tiny.opd", 0)])["tiny.opd", 0, "bf16"]
    assert np.isnan(run.values["effective_rank"]).all() and np.isnan(run.values["hill"]).all()
    assert np.isfinite(run.values["rotation"]).all()


def test_other_runs_and_other_seeds_stay_out(planted, plant):
    runs = [planted(recipe="tiny.opd", seed=seed, kind=1.0) for seed in (0, 1)] + [planted(recipe="a.b", kind=1.0)]
    assert set(read_profiles(plant(runs), [("tiny.opd", 1)])) == {("tiny.opd", 1, "bf16"), ("tiny.opd", 1, "master")}
    assert read_profiles({}, [("tiny.opd", 1)]) == {}


def test_row_order_does_not_change_a_bit(planted, plant):
    tables = plant([planted(recipe="tiny.opd", kind=1.0, offset=0.3)])
    mixed = {name: frame.collect().sample(fraction=1, shuffle=True, seed=1).lazy() for name, frame in tables.items()}
    one, other = (read_profiles(given, [("tiny.opd", 0)])["tiny.opd", 0, "bf16"] for given in (tables, mixed))
    assert all((one.values[name] == other.values[name]).all() for name in one.values)
    assert one.similar == other.similar
