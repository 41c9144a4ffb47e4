import pytest
import torch

from opd_ops.geometry import krylov


def operator(values, seed=0):
    n = len(values)
    q = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    matrix = ((q * torch.tensor(values, dtype=torch.float64)) @ q.T).float()
    return matrix, q


@pytest.mark.parametrize("n", [40, 300])
def test_leading_pairs_of_a_known_operator(n):
    values = [2.0**-i for i in range(n)]
    matrix, q = operator(values)
    found = krylov.leading_eigenpairs(
        lambda x: matrix @ x, n, 4, enough=lambda leading: float(leading.residuals.max()) < 1e-6
    )
    assert torch.allclose(found.values, torch.tensor(values[:4], dtype=torch.float64), rtol=1e-6)
    assert torch.allclose((q[:, :4].T @ found.vectors.double()).abs(), torch.eye(4, dtype=torch.float64), atol=1e-5)
    assert bool((found.residuals < 1e-6).all())


def test_residuals_are_those_of_the_vectors():
    matrix, _ = operator([1.0 - i / 400 for i in range(200)])
    found = krylov.leading_eigenpairs(lambda x: matrix @ x, 200, 3, enough=lambda leading: True)
    true = (matrix @ found.vectors - found.vectors * found.values.float()).norm(dim=0)
    assert torch.allclose(found.residuals.float(), true, rtol=1e-3, atol=1e-6)


def test_a_space_smaller_than_the_block_and_a_zero_operator():
    found = krylov.leading_eigenpairs(lambda x: 0 * x, 5, 2, enough=lambda leading: False)
    assert found.values.tolist() == [0.0, 0.0]
    assert krylov.norm_bound(lambda x: 0 * x, 5) == 0.0


def test_results_repeat():
    matrix, _ = operator([1.0 / (i + 1) for i in range(100)])
    run = lambda: krylov.leading_eigenpairs(lambda x: matrix @ x, 100, 3, enough=lambda leading: True).vectors
    assert torch.equal(run(), run())


@pytest.mark.parametrize(
    "values", [[1.0] + [0.99] * 199, [1.0] * 200, [1.0] + [1e-6] * 199, [0.5**i for i in range(200)]]
)
@pytest.mark.parametrize("seed", range(5))
def test_bounds_on_the_norm_hold_and_say_something(values, seed):
    matrix, _ = operator(values, seed)
    bound = krylov.norm_bound(lambda x: matrix @ x, 200)
    assert 1.0 <= bound < 4.0 * (200 if values[1] > 0.9 else 1) ** 0.25
    found = krylov.leading_eigenpairs(lambda x: matrix @ x, 200, 1, enough=lambda leading: True)
    steps = found.dimension // krylov.BLOCK
    missed = krylov.miss_bound(200, krylov.BLOCK, steps)
    assert float(found.values[0]) / (1.0 - missed) >= 1.0 - 1e-6
    assert missed < 0.5


def test_one_vector_step_says_nothing():
    assert krylov.miss_bound(4096, 1, 1) == 1.0
