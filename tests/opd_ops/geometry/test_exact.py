import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opd_ops.geometry import exact
from opd_ops.geometry.exact import factorise, principal_angles
from opd_ops.geometry.rotation import subspace_error

SHAPES = [(300, 700), (700, 300), (300, 300)]


def both_routes(a, vectors, monkeypatch):
    gram = factorise(a, vectors)
    monkeypatch.setattr(exact, "SVD_LIMIT", max(a.shape))
    return gram, factorise(a, vectors)


@pytest.mark.parametrize("shape", SHAPES)
def test_gram_and_svd_agree_on_every_orientation(shape, planted, monkeypatch):
    gram, svd = both_routes(planted(*shape).weight, 24, monkeypatch)
    assert (gram.method, svd.method) == ("gram-f64", "svd-f64")
    # Condition number 2: both routes lose next to nothing (c eps = 1.6e-13 is the stated bound).
    assert torch.allclose(gram.s, svd.s, rtol=2e-13, atol=0.0)
    bound = subspace_error(gram, 24) + subspace_error(svd, 24)
    for side in exact.SIDES:
        assert float(principal_angles(gram.basis(side), svd.basis(side))[-1]) <= bound < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_gram_loses_small_values_no_faster_than_documented(shape, planted):
    true = torch.logspace(0, -6, min(shape), dtype=torch.float64)
    found = factorise(planted(*shape, s=true).weight, 16)
    bound = torch.tensor([found.noise(i + 1) for i in range(len(true))])
    assert bool(((found.s - true).abs() / true <= bound).all())


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), *SHAPES])
def test_factors_are_orthonormal_descending_and_paired(shape, planted):
    given_factors = planted(*shape)
    found = factorise(given_factors.weight, 20)
    identity = torch.eye(20, dtype=torch.float64)
    for basis in (found.u, found.v):
        assert basis.shape[1] == 20
        assert torch.allclose(basis.T @ basis, identity, atol=1e-13)  # a few dozen eps
    assert found.s.shape == (min(shape),)
    assert bool((found.s.diff() <= 0).all())
    # Left and right vectors must belong together with one sign: A v = sigma u.
    assert torch.allclose(given_factors.weight @ found.v, found.u * found.s[:20], atol=1e-12)


@pytest.mark.parametrize("shape", [(40, 90), *SHAPES])
def test_rank_deficient_and_zero_matrices_stay_finite(shape, planted):
    s = torch.zeros(min(shape), dtype=torch.float64)
    for rank in (0, 3):
        s[:rank] = 1.0
        found = factorise(planted(*shape, s=s).weight, 16)
        for tensor in (found.u, found.s, found.v):
            assert bool(torch.isfinite(tensor).all())
        assert torch.allclose(found.v.T @ found.v, torch.eye(16, dtype=torch.float64), atol=1e-13)
        assert [found.resolves(k) for k in (1, 3, 4, 16)] == [rank > 0, rank > 0, False, False]


def test_fewer_vectors_than_asked_for_where_the_matrix_is_small():
    found = factorise(torch.eye(4, 6, dtype=torch.float64), 16)
    assert (found.u.shape, found.v.shape) == ((4, 4), (6, 4))
    assert found.sigma(4) == 1.0
    assert found.sigma(5) == 0.0


def test_factor_refuses_other_dtypes_and_ranks():
    with pytest.raises(ValueError, match="float32"):
        factorise(torch.zeros(2, 2), 1)
    with pytest.raises(ValueError, match="float64 matrix"):
        factorise(torch.zeros(2, dtype=torch.float64), 1)


@pytest.mark.parametrize("degrees", [0.0, 1e-9, 1e-6, 1e-3, 1.0, 44.9, 45.0, 45.1, 60.0, 90.0])
def test_angle_of_two_planes(degrees):
    t = math.radians(degrees)
    q0 = torch.eye(4, 2, dtype=torch.float64)
    q1 = torch.tensor([[1, 0], [0, math.cos(t)], [0, math.sin(t)], [0, 0]], dtype=torch.float64)
    first, second = principal_angles(q0, q1).tolist()
    assert first == 0.0
    assert second == pytest.approx(degrees, rel=1e-14, abs=0.0)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**20), n=st.integers(2, 30), k=st.integers(1, 30), power=st.integers(-12, 0))
def test_angles_agree_with_scipy_and_are_symmetric(seed, n, k, power):
    k = min(k, n // 2)  # past half of the space some angles are 0 by necessity, which scipy finds to 1e-6 degrees only
    rng = np.random.default_rng(seed)
    q0, _ = np.linalg.qr(rng.standard_normal((n, k)))
    q1, _ = np.linalg.qr(q0 + 10.0**power * rng.standard_normal((n, k)))
    found = principal_angles(torch.from_numpy(q0), torch.from_numpy(q1)).numpy()
    # Absolute rounding of a [n, k] product of orthonormal bases, n <= 30: well under 1e-13 rad = 6e-12 degrees.
    assert np.allclose(found, np.rad2deg(scipy.linalg.subspace_angles(q0, q1))[::-1], rtol=1e-12, atol=6e-12)
    back = principal_angles(torch.from_numpy(q1), torch.from_numpy(q0)).numpy()
    assert np.allclose(found, back, rtol=1e-12, atol=6e-12)
    assert (np.diff(found) >= 0).all()


def test_angles_ignore_signs_order_and_mixing_of_vectors(orthonormal):
    q0, q1, mixing = orthonormal(50, 6, 0), orthonormal(50, 6, 1), orthonormal(6, 6, 2)
    plain = principal_angles(q0, q1)
    assert torch.allclose(principal_angles(q0 @ mixing, -q1.flip(1)), plain, atol=1e-12)


def test_equal_bases_and_whole_spaces_have_exactly_zero_angles(orthonormal):
    q = orthonormal(30, 5, 0)
    assert principal_angles(q, q.clone()).tolist() == [0.0] * 5
    assert principal_angles(orthonormal(5, 5, 1), orthonormal(5, 5, 2)).tolist() == [0.0] * 5
