import pytest
import torch

from opd_ops.geometry.update import Update, no_subspaces


def large(e):
    """The route of large matrices on a small one."""
    update = Update(e)
    update.small = False
    return update


def sines(found, true):
    return torch.linalg.matrix_norm(found.double() - true @ (true.T @ found.double()))


@pytest.fixture(params=["rl", "sft", "low_rank"])
def e(request, weight, updated):
    w0, u, _, v = weight("heavy", 240, 330, 16, 0)
    return updated(w0, u, v, request.param, 16, 1e-3, 1) - w0.float()


def test_norms_and_spectrum_are_those_of_float64_within_their_bounds(e):
    s = torch.linalg.svdvals(e.double())
    for update in (Update(e), large(e)):
        assert update.frobenius == pytest.approx(float(s.norm()), rel=1e-12)
        assert bool(((update.spectrum.values - s).abs() <= update.spectrum.noise).all())
        value, error = update.norm
        assert abs(value - float(s[0])) <= error < 1e-3 * value
        assert float(s[0]) <= update.norm_bound < 1.01 * float(s[0])
    assert float(s[0]) <= large(e).norm_bound <= min(3 * float(s[0]), large(e).frobenius)


def test_a_leading_value_that_hardly_leads_is_within_its_error(orthonormal):
    """Lanczos from one vector stops at a mixture of such values, with a residual that says nothing of the largest."""
    s = torch.ones(520, dtype=torch.float64)
    s[0] = 1 + 3e-4
    update = Update(((orthonormal(520, 520, 0) * s) @ orthonormal(560, 520, 1).T).float())
    value, error = update.norm
    assert abs(value - float(s[0])) <= error < 1e-4


@pytest.mark.parametrize("turned", [False, True])
def test_leading_subspaces_are_within_their_errors(e, turned):
    e = e.T.contiguous() if turned else e
    u, s, vt = torch.linalg.svd(e.double(), full_matrices=False)
    for update in (Update(e), large(e)):
        found = update.subspaces((2, 8))
        for k, error in zip(found.cuts, found.errors, strict=True):
            assert float(sines(found.output[:, :k], u[:, :k])) <= error + 1e-6
            assert float(sines(found.input[:, :k], vt[:k].T)) <= error + 1e-6
            if float(s[k - 1] / s[k]) > 1.2:
                assert error < 0.01


def test_a_cut_without_a_gap_has_an_error_that_says_nothing(orthonormal):
    s = torch.cat([torch.ones(8), 0.1 * torch.ones(592)]).double()
    e = ((orthonormal(600, 600, 1) * s) @ orthonormal(700, 600, 2).T).float()
    found = Update(e).subspaces((4, 8))
    assert found.errors[0] == 2.0
    assert found.errors[1] < 1e-2


def test_what_has_no_subspace_says_why(orthonormal):
    e = (orthonormal(540, 3, 1) @ orthonormal(600, 3, 2).T).float()
    found = Update(e).subspaces((3, 16, 900))
    assert found.reasons == (None, "sigma_16 of the update is numerically zero", "k=900 exceeds min(m, n)=540")
    assert Update(torch.zeros(540, 600)).subspaces((2,)).reasons == ("zero update",)
    assert no_subspaces((5, 7), (1, 2), "because").reasons == ("because", "because")
