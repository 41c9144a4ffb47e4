import pytest
import torch

from opd_ops.training.subspace import Leak, Subspace

OUT, IN, K = 7, 5, 2


def orthonormal(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64)).Q


def subspace(side):
    right = orthonormal(IN, K, 1) if side in ("right", "both") else None
    left = orthonormal(OUT, K, 2) if side in ("left", "both") else None
    return Subspace(right=right, left=left)


def matrix(seed=3):
    return torch.randn(OUT, IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("side", "shape"), [("right", (OUT, K)), ("left", (K, IN)), ("both", (K, K))])
def test_it_is_an_orthogonal_projection_and_its_coefficients_keep_the_norm(side, shape):
    space, x, y = subspace(side), matrix(3), matrix(4)
    projected = space.project(x)
    assert torch.allclose(space.project(projected), projected, atol=1e-14)
    assert float((projected * y).sum()) == pytest.approx(float((x * space.project(y)).sum()), rel=1e-12)
    coefficients = space.compress(x)
    assert tuple(coefficients.shape) == shape
    assert float(coefficients.norm()) == pytest.approx(float(projected.norm()), rel=1e-12)
    assert torch.allclose(space.compress(space.expand(coefficients)), coefficients, atol=1e-14)
    assert torch.linalg.matrix_rank(projected) == K


def test_the_sides_are_those_of_the_formula():
    x = matrix()
    v, u = orthonormal(IN, K, 1), orthonormal(OUT, K, 2)
    for side, expected in (("right", x @ v @ v.T), ("left", u @ u.T @ x), ("both", u @ u.T @ x @ v @ v.T)):
        assert torch.allclose(subspace(side).project(x), expected, atol=1e-14)
    assert subspace("right").compress(x.float()).dtype == torch.float64


@pytest.mark.parametrize("side", ["right", "left", "both"])
def test_a_leak_is_the_sine_of_a_planted_angle(side):
    space = subspace(side)
    inside = space.project(matrix())
    outside = matrix(4) - space.project(matrix(4))
    leak = Leak()
    leak.add(space, 3 * inside / inside.norm() + 4 * outside / outside.norm())
    assert leak.fraction == pytest.approx(0.8, rel=1e-12)
    leak.add(space, 12 * inside / inside.norm())  # matrices count together: 4 of sqrt(25 + 144)
    assert leak.fraction == pytest.approx(4 / 13, rel=1e-12)


def test_nothing_moved_leaks_nothing():
    leak = Leak()
    assert leak.fraction == 0.0
    leak.add(subspace("right"), torch.zeros(OUT, IN, dtype=torch.float64))
    assert leak.fraction == 0.0
