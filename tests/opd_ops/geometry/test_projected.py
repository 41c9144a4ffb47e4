"""Similarity to the projected end: closed forms on planted trajectories, whatever the route."""

import pytest
import torch

from opd_ops.geometry.projected import projected_end, similarity_to_end

M, N, K = 40, 60, 4


def orthonormal(n, k, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64)).Q


LEFT, RIGHT = orthonormal(M, 2 * K, 1), orthonormal(N, 2 * K, 2)
HERE = LEFT[:, :K] @ RIGHT[:, :K].T  # K equal singular values
THERE = LEFT[:, K:] @ RIGHT[:, K:].T  # as many, in directions orthogonal to the former on both sides


def noise(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_projected_end_has_twice_the_norm_and_lies_on_the_line():
    before, e = noise(M, N, seed=1), noise(M, N, seed=2)
    end = projected_end(e, before)
    assert float(end.norm() / e.norm()) == pytest.approx(2.0, rel=1e-12)
    ahead = float(((end - e) * (e - before)).sum() / (e - before).square().sum())
    torch.testing.assert_close(end, e + ahead * (e - before))
    assert ahead > 0


def test_a_straight_trajectory_ends_where_it_is():
    direction = noise(M, N, seed=3)
    for now, then in ((1.0, 0.5), (5.0, 2.0), (0.001, 0.0004)):
        value, reason = similarity_to_end(now * direction, then * direction, K)
        assert reason is None and value == pytest.approx(1.0, abs=1e-12)


def test_a_run_that_takes_up_orthogonal_directions_will_end_in_them():
    # E = A + 0.9 B leads in A; at twice the norm it is A + x B with 1 + x^2 = 4 (1 + 0.81), so x = 2.5 leads.
    value, _ = similarity_to_end(HERE + 0.9 * THERE, HERE, K)
    assert value == pytest.approx(0.0, abs=1e-12)


def test_a_run_that_takes_up_half_of_its_directions_anew_keeps_the_other_half():
    scale = torch.diag(torch.tensor([1.0] * K + [0.9] * (K // 2) + [0.0] * (K // 2), dtype=torch.float64))
    now = LEFT @ scale @ RIGHT.T
    value, _ = similarity_to_end(now, HERE, K)
    assert value == pytest.approx(0.5, abs=1e-12)


def test_a_random_walk_lies_between_chance_and_a_straight_line():
    for seed in range(5):
        first = noise(M, N, seed=10 + seed)
        value, _ = similarity_to_end(first + noise(M, N, seed=100 + seed), first, K)
        assert K / N < value < 0.8


def test_scale_and_orientation_do_not_matter():
    before, e, turn = noise(M, N, seed=1), noise(M, N, seed=2), orthonormal(M, M, 5)
    plain, _ = similarity_to_end(e, before, K)
    for other, then in ((1e-3 * e, 1e-3 * before), (turn @ e, turn @ before)):
        assert similarity_to_end(other, then, K)[0] == pytest.approx(plain, abs=1e-10)


def test_large_matrices_take_another_route_to_the_same_number():
    generator = torch.Generator().manual_seed(0)
    core = torch.randn(700, 20, generator=generator) @ torch.randn(20, 600, generator=generator)
    drift = torch.randn(700, 20, generator=generator) @ torch.randn(20, 600, generator=generator)
    now, then = core + 0.5 * drift, 0.5 * core
    certified, _ = similarity_to_end(now, then, K)
    exact, _ = similarity_to_end(now.double(), then.double(), K)
    assert certified == pytest.approx(exact, abs=1e-4)  # f32 vectors, converged to 1e-3 of the gap


@pytest.mark.parametrize(
    ("e", "before", "k", "reason"),
    [
        (HERE, HERE, K, "nothing has moved"),
        (0 * HERE, HERE, K, "nothing has moved"),
        (HERE, 0.5 * HERE, K + 1, "numerically zero"),
        (HERE, 0.5 * HERE, M + 1, "exceeds"),
    ],
)
def test_what_has_no_end_or_no_subspace_says_why(e, before, k, reason):
    value, why = similarity_to_end(e, before, k)
    assert value is None and reason in why


def test_updates_that_are_not_finite_are_refused():
    with pytest.raises(RuntimeError, match="finite"):
        similarity_to_end(HERE * float("nan"), HERE, K)
