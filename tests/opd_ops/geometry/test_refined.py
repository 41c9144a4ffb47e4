"""The bound on leading subspaces holds whatever they were refined from; it is vacuous only where nothing is known."""

import pytest
import torch

from opd_ops.geometry.gram import spectrum
from opd_ops.geometry.refined import refine_basis

M, N, WIDTH = 150, 230, 12


def values(kind):
    tail = torch.linspace(0.2, 0.01, M - 8, dtype=torch.float64)
    return {
        "gap": torch.cat([torch.linspace(2, 1, 8).double(), tail]),
        "low rank": torch.cat([torch.linspace(2, 1, 8).double(), torch.zeros(M - 8)]),
        "tie at 4": torch.cat([torch.tensor([2.0, 1.9, 1.8, 1.5, 1.5, 1.2, 1.1, 1.0]).double(), tail]),
        "close at 4": torch.cat([torch.tensor([2.0, 1.9, 1.8, 1.5, 1.4999, 1.2, 1.1, 1.0]).double(), tail]),
        "flat": torch.linspace(1.0, 0.99, M, dtype=torch.float64),
        "steep": torch.logspace(0, -5, M, dtype=torch.float64),
    }[kind]


def sines(basis, true):
    return float(torch.linalg.matrix_norm(basis - true @ (true.T @ basis)))


@pytest.mark.parametrize("blur", [0.0, 1e-6, 1e-3, 0.1])
@pytest.mark.parametrize("kind", ["gap", "low rank", "tie at 4", "close at 4", "flat", "steep"])
def test_sines_are_within_the_bound_on_both_sides(kind, blur, orthonormal):
    s = values(kind)
    e = ((orthonormal(M, M, 3) * s) @ orthonormal(N, M, 4).T).float()
    u, _, vt = torch.linalg.svd(e.double(), full_matrices=False)
    noise = torch.randn(M, WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    refined = refine_basis(e, (u[:, :WIDTH] + blur * noise / M**0.5).float())
    known = spectrum(e, torch.float32)
    for k in (1, 4, 8):
        error = refined.error(k, known, float(e.double().norm()))
        assert 0 < error <= k**0.5
        assert sines(refined.near[:, :k], u[:, :k]) <= error + 1e-9 or error == k**0.5
        assert sines(refined.far[:, :k], vt[:k].T) <= error + 1e-9 or error == k**0.5
    if kind in ("gap", "low rank") and blur <= 1e-3:
        assert refined.error(8, known, float(e.double().norm())) < 0.02
    if kind == "tie at 4":
        assert refined.error(4, known, float(e.double().norm())) == 2.0


def test_a_missed_leading_vector_makes_the_bound_vacuous(orthonormal):
    e = ((orthonormal(M, M, 3) * values("gap")) @ orthonormal(N, M, 4).T).float()
    u = torch.linalg.svd(e.double(), full_matrices=False)[0]
    refined = refine_basis(e, u[:, 1 : WIDTH + 1].float())
    assert refined.error(8, spectrum(e, torch.float32), float(e.double().norm())) == 8**0.5


def test_the_bound_is_that_of_float64_where_f32_spectra_cannot_tell_the_gap(orthonormal):
    """A gap of 1e-5 of sigma_1^2 is within the noise of an f32 spectrum and far above a float64 residual."""
    s = torch.cat([torch.ones(4), torch.full((8,), 1 - 5e-6), torch.linspace(0.5, 0.1, M - 12)]).double()
    e = ((orthonormal(M, M, 3) * s) @ orthonormal(N, M, 4).T).float()
    u = torch.linalg.svd(e.double(), full_matrices=False)[0]
    known = spectrum(e, torch.float32)
    assert float(known.noise[0]) > 5e-6
    error = refine_basis(e, u[:, :WIDTH].float()).error(4, known, float(e.double().norm()))
    assert error < 0.2
