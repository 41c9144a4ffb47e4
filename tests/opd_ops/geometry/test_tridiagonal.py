"""One reduction gives what float64 eigh gives, to the rounding of its dtype, on matrices with and without structure."""

import pytest
import torch

from opd_ops.geometry import tridiagonal
from opd_ops.geometry.base import factorise_base
from opd_ops.geometry.gram import eigenvalues, gram
from opd_ops.geometry.tridiagonal import Tridiagonal

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-13}


def planted(kind, m, orthonormal):
    generator = torch.Generator().manual_seed(m)
    u = orthonormal(m, m, 1)
    values = {
        "spread": torch.logspace(0, -6, m, dtype=torch.float64),
        "clusters": torch.tensor([1.0, 1.0, 1.0, 0.5] * (m // 4) + [0.25] * (m % 4), dtype=torch.float64),
        "low rank": torch.cat([torch.linspace(2, 1, 3), torch.zeros(m - 3)]).double(),
        "identity": torch.ones(m, dtype=torch.float64),
    }
    if kind == "zero rows":
        a = torch.randn(m, 40, generator=generator, dtype=torch.float64)
        a[::2] = 0
        return a @ a.T
    if kind == "diagonal":
        return torch.diag(values["spread"])
    return (u * values[kind]) @ u.T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [4, 5, 64, 130])
@pytest.mark.parametrize("kind", ["spread", "clusters", "low rank", "identity", "zero rows", "diagonal"])
def test_values_and_vectors_are_those_of_the_matrix(kind, m, dtype, orthonormal):
    matrix = planted(kind, m, orthonormal).to(dtype)
    reduced = Tridiagonal(matrix.tril())  # the lower triangle is all that is read
    exact = torch.linalg.eigvalsh(matrix.double()).flip(0)
    bound = TOLERANCE[dtype] * float(exact[0])
    assert float((reduced.values() - exact).abs().max()) <= bound
    for k in {1, min(3, m), m}:
        values, single = reduced.values(), max(bound, TOLERANCE[torch.float32] * float(exact[0]))
        for made, true, limit in (
            (reduced.vectors(k), values[:k], bound),
            (reduced.split(k, m)[0], values[:k], bound),
            (reduced.split(m - k, m)[1], values[m - k :], single),
        ):
            vectors = made.double()
            assert vectors.shape == (m, k)
            residual = matrix.double() @ vectors - vectors * true
            assert float(residual.norm(dim=0).max()) <= limit
            # Of one cluster, dstemr keeps vectors orthogonal to some hundred eps.
            assert float((vectors.T @ vectors - torch.eye(k)).abs().max()) <= 10 * limit / float(exact[0])


@pytest.mark.parametrize("failure", ["info", "too few"])
def test_leading_vectors_do_not_hang_on_one_routine(failure, monkeypatch, orthonormal):
    """dstemr gives up on some matrices with close values (info 22); what it left must not be taken for vectors."""
    matrix, real = planted("clusters", 64, orthonormal), tridiagonal._routine

    def failing(prefix, name):
        def stemr(*given):
            count, values, vectors, info = real(prefix, name)(*given)
            return (count, values, 0 * vectors, 22) if failure == "info" else (count - 1, values, 0 * vectors, info)

        return stemr if name == "stemr" else real(prefix, name)

    monkeypatch.setattr(tridiagonal, "_routine", failing)
    vectors = Tridiagonal(matrix).vectors(5)
    assert float((matrix @ vectors - vectors * Tridiagonal(matrix).values()[:5]).abs().max()) < 1e-13
    assert float((vectors.T @ vectors - torch.eye(5)).abs().max()) < 1e-13


def test_all_vectors_of_low_rank_and_small_noise():
    """dstemr gives up on this matrix (info 22 on x86 with OpenBLAS), which would make its rotation dense float64."""
    generator = torch.Generator().manual_seed(144)
    left, right = (torch.randn(*shape, generator=generator) for shape in ((244, 8), (8, 244)))
    w = left @ right * 0.01 + 1e-8 * torch.randn(244, 244, generator=generator)
    base = factorise_base(w, 96)
    s = torch.linalg.svdvals(w.double())
    assert base.residual < 1e-6 * float(s[0])
    assert float((base.s - s).abs().max()) <= float(base.spectrum.noise.max())
    assert float((base.u.T @ base.u - torch.eye(96)).abs().max()) < 1e-13


def test_a_matrix_of_one_row_has_its_vector():
    assert float(Tridiagonal(torch.full((1, 1), 2.0)).vectors(1).abs()) == 1.0


def test_f32_that_overflows_is_refused_and_values_come_from_float64():
    matrix = torch.full((6, 6), 3e38)
    with pytest.raises(ArithmeticError, match="does not hold"):
        Tridiagonal(matrix)
    assert float(eigenvalues(matrix)[0]) == pytest.approx(6 * float(matrix[0, 0]), rel=1e-6)


def test_spectra_are_the_same_by_either_way(monkeypatch):
    a = torch.randn(90, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    here = eigenvalues(gram(a, torch.float64))
    monkeypatch.setattr("opd_ops.geometry.gram.SIDE", 0)
    there = eigenvalues(gram(a, torch.float64))
    assert float((here - there).abs().max()) < 1e-13 * float(here[0])
    assert tridiagonal.SIDE > 2048, "the sides of common models up to 2048 take the reduction"
