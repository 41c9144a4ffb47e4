import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_ops.geometry import drift, rotation
from opd_ops.geometry.exact import SIDES, factorise, principal_angles


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (260, 280)])
def test_planted_shifts_give_the_closed_form(shape, planted, pair):
    w0 = planted(*shape)
    shift = torch.zeros(min(shape), dtype=torch.float64)
    shift[::3] = 1e-5
    moved = planted(*shape, s=w0.s + shift)
    row = pair(w0.weight, moved.weight).rows["spectral_drift"][-1]
    # U and V are shared, so Mirsky's bound is attained. Absolute error c eps = 6e-14 on a value near 5e-6.
    expected = float(shift.norm() / w0.s.norm())
    assert row["nss"] == pytest.approx(expected, rel=1e-7)
    assert row["mirsky"] == pytest.approx(expected, rel=1e-7)


def test_a_rotation_alone_does_not_drift(planted, pair):
    w0 = planted(30, 50)
    row = pair(w0.weight, w0.turned("output", 0, 20, 30.0)).rows["spectral_drift"][-1]
    assert row["nss"] < 1e-13  # c eps = 1.1e-14, twice
    assert row["mirsky"] > 0.01


@pytest.mark.parametrize("shape", [(30, 50), (280, 260)])
def test_a_matrix_against_itself_has_exactly_zero_drift(shape, planted, pair):
    w0 = planted(*shape).weight.float()
    for row in pair(w0, w0.clone()).rows["spectral_drift"]:
        assert (row["nss"], row["mirsky"], row["error"]) == (0.0, 0.0, 0.0)


def test_a_zero_start_has_no_scale(pair):
    row = pair(torch.zeros(4, 6), torch.ones(4, 6)).rows["spectral_drift"][0]
    assert (row["nss"], row["mirsky"], row["reason"]) == (None, None, "W0 is zero")


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**20),
    m=st.integers(2, 24),
    n=st.integers(2, 24),
    power=st.floats(-8, 1),
    k=st.integers(1, 12),
)
def test_weyl_mirsky_and_wedin_hold(seed, m, n, power, k):
    generator = torch.Generator().manual_seed(seed)
    w0 = torch.randn(m, n, generator=generator, dtype=torch.float64)
    delta = 10.0**power * torch.randn(m, n, generator=generator, dtype=torch.float64)
    base, tuned, size = factorise(w0, k), factorise(w0 + delta, k), float(torch.linalg.matrix_norm(delta, 2))
    slack = 1e-13 * (base.sigma(1) + tuned.sigma(1))  # c eps sigma_1 of each factorization, c = 24, with room
    assert float((tuned.s - base.s).abs().max()) <= size + slack  # Weyl
    row = drift.rows(base.spectrum, tuned.spectrum, float(delta.norm()), "master")[0]
    assert row["nss"] <= row["mirsky"] + slack / base.sigma(1)  # Mirsky
    room = base.sigma(k) - tuned.sigma(k + 1)
    if k < min(m, n) and room > size:
        # Wedin: sin(theta) <= ||dW||_2 / (sigma_k(W0) - sigma_{k+1}(W_t)) on both sides.
        allowed = math.degrees(math.asin(min(1.0, size / room)))
        error = rotation.subspace_error(base, k) + rotation.subspace_error(tuned, k)
        for side in SIDES:
            assert float(principal_angles(base.basis(side), tuned.basis(side))[-1]) <= allowed + error
