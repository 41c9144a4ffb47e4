import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opd_ops.geometry import spectrum
from opd_ops.geometry.exact import factorise
from opd_ops.geometry.gram import Spectrum
from opd_ops.geometry.spectrum import effective_rank, hill, hill_cuts
from opd_ops.geometry.update import Update


def only(measurement, table="update_spectrum", view="master"):
    return [row for row in measurement.rows[table] if row["view"] == view]


@pytest.mark.parametrize("rank", [1, 3, 16, 20])
@pytest.mark.parametrize("shape", [(24, 40), (260, 270)])
def test_an_update_of_equal_singular_values_has_rank_as_every_rank(shape, rank, planted, pair):
    s = torch.zeros(min(shape), dtype=torch.float64)
    s[:rank] = 0.25
    w0, delta = planted(*shape), planted(*shape, seed=7, s=s).weight
    found = pair(w0.weight, w0.weight + delta)
    row = only(found)[0] | only(found, "update_norm")[0]
    # Entropy adds up to r terms of noise; Gram noise reaches 1e-8 sigma_1 a value, 260 * 1e-8 * log(1e8) in all.
    tolerance = 1e-10 if shape[0] == 24 else 1e-4
    assert row["stable_rank"] == pytest.approx(rank, rel=1e-12)
    assert row["effective_rank"] == pytest.approx(rank, rel=tolerance)
    assert row["effective_rank_energy"] == pytest.approx(rank, rel=1e-10)
    assert row["frobenius"] == pytest.approx(0.25 * rank**0.5, rel=1e-12)
    assert row["spectral_norm"] == pytest.approx(0.25, rel=1e-12)
    assert row["relative_norm"] == pytest.approx(0.25 * rank**0.5 / float(w0.s.norm()), rel=1e-12)
    assert row["energy_top16"] == pytest.approx(min(1.0, 16 / rank), rel=1e-12)


def test_ranks_of_a_known_spectrum():
    s = torch.tensor([4.0, 2.0, 2.0, 0.0], dtype=torch.float64)
    assert effective_rank(s) == pytest.approx(math.exp(1.5 * math.log(2)))  # p = 1/2, 1/4, 1/4
    assert effective_rank(s.square()) == pytest.approx(math.exp(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 6))))


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30))
def test_ranks_lie_between_one_and_the_number_of_values(values):
    s = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    room = 1e-12 * len(values)
    for rank in (effective_rank(s), effective_rank(s.square())):
        assert 1.0 - room <= rank <= len(values) + room


def test_a_zero_update_is_null_where_it_has_no_direction(planted, pair):
    w0 = planted(20, 30).weight
    found = pair(w0, w0.clone())
    row = only(found)[0] | only(found, "update_norm")[0]
    assert (row["frobenius"], row["relative_norm"], row["spectral_norm"]) == (0.0, 0.0, 0.0)
    assert [row[c] for c in ("stable_rank", "effective_rank", "effective_rank_energy", "energy_top16")] == [None] * 4
    assert row["reason"] == "zero update"


def test_a_zero_start_has_no_relative_norm(pair):
    row = only(pair(torch.zeros(4, 6), torch.ones(4, 6)), "update_norm")[0]
    assert (row["relative_norm"], row["reason"]) == (None, "W0 is zero")
    assert row["stable_rank"] == pytest.approx(1.0)
    still = only(pair(torch.zeros(4, 6), torch.zeros(4, 6)), "update_norm")[0]
    assert still["reason"] == "zero update; W0 is zero"


def test_each_view_has_its_own_grid(planted, pair):
    w0 = planted(20, 30).weight.float()
    rows = pair(w0, w0 * 1.01).rows["update_norm"]
    coarse, fine = rows[0]["rounding_norm"], rows[1]["rounding_norm"]
    assert coarse / fine == pytest.approx(2.0**16, rel=0.01)  # 8 against 24 bits; few values change their binade


def with_spectrum(s, planted):
    return factorise(planted(len(s), len(s) + 8, s=s).weight, 0).spectrum


@pytest.mark.parametrize("index", [0.5, 2.0, 3.7])
def test_hill_of_a_power_law_is_the_closed_form(index, planted):
    """sigma_i = i^(-1/a): mean_{i<k} log(sigma_i / sigma_k) = (log k - log((k-1)!) / (k-1)) / a."""
    s = torch.arange(1, 65, dtype=torch.float64) ** (-1 / index)
    for k in (2, 16, 64):
        expected = index / (math.log(k) - math.lgamma(k) / (k - 1))
        # sigma_64 is 1.5e-8 .. 0.3 of sigma_1, so its logarithm is good to noise(64), at worst 7e-11.
        found, error, reason = hill(with_spectrum(s, planted), k)
        assert (found, reason) == (pytest.approx(expected, rel=1e-8), None)
        assert abs(found - expected) <= error < 1e-5 * expected


def test_hill_ignores_scale(planted):
    s = torch.logspace(0, -2, 40, dtype=torch.float64)
    plain, scaled = (hill(with_spectrum(c * s, planted), 16)[0] for c in (1.0, 1e-7))
    assert plain == pytest.approx(scaled, rel=1e-12)


def test_hill_is_null_where_it_does_not_exist(planted):
    s = torch.ones(20, dtype=torch.float64)
    assert hill(with_spectrum(s, planted), 16) == (
        None,
        None,
        "the spread of the top 16 singular values is within their rounding",
    )
    s[10:] = 0.0
    assert hill(with_spectrum(s, planted), 16) == (None, None, "sigma_16 of the update is numerically zero")
    assert hill(with_spectrum(s, planted), 32) == (None, None, "k=32 exceeds min(m, n)=20")
    assert hill(with_spectrum(0.0 * s, planted), 2) == (None, None, "sigma_2 of the update is numerically zero")


def test_gram_noise_is_no_spectrum(planted):
    """Below the Gram route's floor the values are rounding, and Hill refuses them."""
    s = torch.zeros(260, dtype=torch.float64)
    s[:8] = 1.0
    found = factorise(planted(260, 300, s=s).weight, 0)
    assert found.method == "gram-f64"
    assert hill(found.spectrum, 16) == (None, None, "sigma_16 of the update is numerically zero")
    assert hill(found.spectrum, 8) == (None, None, "the spread of the top 8 singular values is within their rounding")


def test_hill_cuts_add_a_tenth_of_the_matrix():
    assert hill_cuts((16, 32, 64), 128) == (13, 16, 32, 64)
    assert hill_cuts((64, 16), 160) == (16, 64)
    assert hill_cuts((16,), 4) == (2, 16)


def test_hill_rows_carry_every_cut(planted, pair):
    w0 = planted(40, 50)
    rows = only(pair(w0.weight, planted(40, 50, seed=5).weight, hill_k=(8, 64)), "hill")
    assert [(row["k"], row["hill"] is None) for row in rows] == [(4, False), (8, False), (64, True)]
    assert set(rows[0]) >= {"view", "k", "hill", "error", "reason"}
    assert spectrum.hill_rows(factorise(w0.weight, 0).spectrum, (8,), "bf16")[0]["view"] == "bf16"


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=30), st.floats(1e-9, 1e-5), st.integers(0, 99))
def test_error_columns_bound_what_rounding_does(values, size, seed):
    """A spectrum off by at most its noise has ranks within their first-order bounds, second order aside."""
    s = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    noise = torch.full_like(s, size * float(s[0])).minimum(0.1 * s)
    sign = torch.randint(0, 2, (len(s),), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1.0
    true, found = (spectrum.ranks(Spectrum(x, noise, "")) for x in (s, s + sign * noise))
    for name in ("effective_rank", "effective_rank_energy", "energy_top16"):
        assert abs(true[name] - found[name]) <= 1.2 * true[f"{name}_error"] + 1e-9 * len(s)


def test_norm_rows_bound_the_stable_rank(planted):
    e = planted(540, 600, s=torch.logspace(0, -2, 540, dtype=torch.float64)).weight.float()
    row = spectrum.norm_rows(Update(e), 1.0, 0.0, "master")[0]
    s = torch.linalg.svdvals(e.double())
    true = float((s / s[0]).square().sum())
    assert abs(row["stable_rank"] - true) <= row["stable_rank_error"] < 1e-2 * true
    assert row["iid_stable_rank"] == pytest.approx(540 * 600 / (540**0.5 + 600**0.5) ** 2)
