import math

import pytest
import torch

from opd_ops.geometry import rotation
from opd_ops.geometry.exact import factorise

ANGLES = [1e-6, 1e-5, 1e-3, 0.1, 1.0, 30.0, 44.999, 45.0]
OTHER = {"output": "input", "input": "output"}


def by_side(measurement, view="master"):
    return {row["side"]: row for row in measurement.rows["rotation"] if row["view"] == view}


@pytest.mark.parametrize("degrees", ANGLES)
@pytest.mark.parametrize("side", ["output", "input"])
@pytest.mark.parametrize("shape", [(48, 96), (96, 48), (48, 48)])
def test_a_planted_rotation_is_recovered_on_its_side_alone(shape, side, degrees, planted, pair):
    w0 = planted(*shape)
    rows = by_side(pair(w0.weight, w0.turned(side, 7, 30, degrees), k=(16,)))
    turned, still = rows[side], rows[OTHER[side]]
    # The planted matrix is itself rounded, by less than the factors' own backward error, which error_deg bounds.
    assert abs(turned["max_deg"] - degrees) <= turned["error_deg"]
    assert all(angle <= turned["error_deg"] for angle in turned["angles_deg"][:-1])
    assert still["max_deg"] <= still["error_deg"]
    # Gap 1/47 at sigma_1 = 2: the bound is 4 * 96 * 2^-52 * 94 rad = 5e-10 degrees, far under the smallest angle.
    assert turned["error_deg"] < 1e-9


@pytest.mark.parametrize("degrees", ANGLES)
def test_a_planted_rotation_is_recovered_on_the_gram_route(degrees, planted):
    w0 = planted(260, 300)
    base, tuned = factorise(w0.weight, 16), factorise(w0.turned("input", 3, 200, degrees), 16)
    assert base.method == "gram-f64"
    cut = rotation.exact_cut(base, tuned, 16)
    output, side = (cut.row(name, "master") for name in ("output", "input"))
    assert abs(side["max_deg"] - degrees) <= side["error_deg"] < 1e-8
    assert output["max_deg"] <= output["error_deg"]
    # The bound is a worst case; what is reached on a well separated cut is 1e-4 of the smallest angle or better.
    assert side["max_deg"] == pytest.approx(degrees, rel=1e-4)


def test_summaries_are_of_the_listed_angles(planted, pair):
    w0 = planted(30, 40)
    row = by_side(pair(w0.weight, w0.turned("output", 0, 20, 9.0), k=(4,)))["output"]
    assert len(row["angles_deg"]) == 4
    assert row["angles_deg"] == sorted(row["angles_deg"])
    assert row["max_deg"] == row["angles_deg"][-1]
    assert row["mean_deg"] == pytest.approx(9.0 / 4, rel=1e-9)
    assert row["rms_deg"] == pytest.approx(9.0 / 2, rel=1e-9)
    assert row["gap"] == pytest.approx(1 / 29, rel=1e-12)


def test_a_rotation_inside_the_subspace_is_none(planted, pair):
    w0 = planted(30, 40)
    row = by_side(pair(w0.weight, w0.turned("output", 0, 3, 40.0), k=(8,)))["output"]
    assert row["max_deg"] <= row["error_deg"]


def test_transposition_swaps_the_sides(planted, pair):
    w0 = planted(40, 60)
    w = w0.turned("output", 2, 20, 3.0)
    straight, turned = by_side(pair(w0.weight, w, k=(8,))), by_side(pair(w0.weight.T, w.T, k=(8,)))
    for side, row in straight.items():
        assert turned[OTHER[side]]["angles_deg"] == pytest.approx(row["angles_deg"], abs=row["error_deg"])


def test_signs_and_order_of_rows_and_columns_do_not_matter(planted, pair):
    w0 = planted(40, 60)
    generator = torch.Generator().manual_seed(5)
    permute = lambda w: -w[order][:, columns] * signs
    order, columns = torch.randperm(40, generator=generator), torch.randperm(60, generator=generator)
    signs = torch.randint(0, 2, (60,), generator=generator) * 2.0 - 1.0
    w = w0.turned("input", 2, 20, 3.0)
    plain, other = by_side(pair(w0.weight, w, k=(8,))), by_side(pair(permute(w0.weight), permute(w), k=(8,)))
    for side, row in plain.items():
        assert other[side]["angles_deg"] == pytest.approx(row["angles_deg"], abs=row["error_deg"])


def test_a_matrix_against_itself_has_exactly_zero_angles(planted, pair):
    for shape in ((40, 60), (280, 270)):
        w0 = planted(*shape).weight.float()
        for row in pair(w0, w0.clone(), k=(8,)).rows["rotation"]:
            assert row["angles_deg"] == [0.0] * 8
            assert row["mean_deg"] == row["rms_deg"] == row["max_deg"] == 0.0


def test_cut_past_the_matrix_is_null_with_its_reason(planted, pair):
    w0 = planted(48, 64).weight
    for row in pair(w0, w0 * 1.5, k=(64,)).rows["rotation"]:
        assert row["reason"] == "k=64 exceeds min(m, n)=48"
        assert all(row[column] is None for column in rotation.VALUES)


def test_the_whole_shorter_side_cannot_rotate(planted, pair):
    w0 = planted(12, 40)
    other = planted(12, 40, seed=9)
    rows = by_side(pair(w0.weight, other.weight, k=(12,)))
    assert rows["output"]["angles_deg"] == [0.0] * 12
    assert rows["output"]["error_deg"] == 0.0
    assert rows["input"]["max_deg"] > 10.0
    assert rows["input"]["gap"] == pytest.approx(1.0, rel=1e-12)  # sigma_12 - 0


def test_rank_deficient_start_has_no_subspace(planted, pair):
    s = torch.zeros(20, dtype=torch.float64)
    s[:4] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    w0 = planted(20, 30, s=s).weight
    measurement = pair(w0, w0 + 0.01, k=(8,))
    for row in by_side(measurement).values():
        assert (row["max_deg"], row["reason"]) == (None, "sigma_8 of W0 is numerically zero")
    # Rounding to bf16 fills the rank up: that view has a subspace, of noise, and its rotation is large.
    assert all(row["max_deg"] > 1.0 for row in by_side(measurement, "bf16").values())


def test_rank_deficient_end_has_no_subspace(planted):
    s = torch.zeros(20, dtype=torch.float64)
    s[:4] = 1.0
    base, tuned = factorise(planted(20, 30).weight, 8), factorise(planted(20, 30, s=s).weight, 8)
    assert rotation.explain_undefined(base, tuned, 8) == "sigma_8 of W_t is numerically zero"
    assert rotation.explain_undefined(base, tuned, 4) is None


def test_a_degenerate_cut_has_no_certificate(pair):
    w0 = torch.eye(20, dtype=torch.float64)
    w = w0.clone()
    w[0, 0] += 1e-3
    assert {row["error_deg"] for row in pair(w0, w, k=(8,)).rows["rotation"]} == {90.0}


def test_the_bound_covers_factors_of_a_matrix_with_a_narrow_gap(planted):
    """sigma_8 and sigma_9 a relative 1e-9 apart: vectors are good to about 1e-7 rad, and the bound says at least so."""
    s = torch.linspace(2.0, 1.0, 24, dtype=torch.float64)
    s[8] = s[7] * (1 - 1e-9)
    w0 = planted(24, 40, s=s)
    found = factorise(w0.weight, 8)
    off = float(rotation.principal_angles(found.u, w0.u[:, :8])[-1])
    assert off <= rotation.subspace_error(found, 8) < math.degrees(1e-4)
