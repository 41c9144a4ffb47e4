import pytest
import torch

from opd_ops.geometry.gram import COLUMNS, gram, spectrum
from opd_ops.geometry.spectrum import effective_rank

SHAPES = [(60, 200), (200, 60), (90, 90), (1, 50), (70, COLUMNS + 333)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_the_lower_triangle_is_a_times_its_transpose(shape, layout, stored):
    a = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(stored)
    a = a if layout == "rows" else a.T.contiguous().T
    true = a.double() @ a.double().T
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-6)):
        found = gram(a, dtype).double()
        assert torch.allclose(found.tril(), true.tril(), rtol=0.0, atol=tolerance * float(true.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decay", [0.0, 2.0, 8.0])
def test_noise_bounds_the_error_of_every_value(dtype, shape, decay, orthonormal):
    r = min(shape)
    true = torch.logspace(0, -decay, r, dtype=torch.float64)
    a = ((orthonormal(shape[0], r, 1) * true) @ orthonormal(shape[1], r, 2).T).float()
    true = torch.linalg.svdvals(a.double())
    found = spectrum(a, dtype)
    assert bool(((found.values - true).abs() <= found.noise).all())
    assert bool((found.values.diff() <= 0).all())
    # A floor for the bound: it must not hide digits the route has.
    assert float(found.noise[0]) < 1e4 * torch.finfo(dtype).eps


def test_upper_bounds_past_the_end_are_zero():
    found = spectrum(torch.eye(3))
    assert found.upper_bound_after(2) >= 1.0
    assert found.upper_bound_after(3) == 0.0


@pytest.mark.parametrize("seed", [1, 4, 6, 8])
def test_updates_of_few_entries_have_a_spectrum(seed):
    """Of one entry in 340, in a third of the rows, as rounding leaves of a small step: LAPACK's f32 fails on some."""
    generator, side, count = torch.Generator().manual_seed(seed), 576, 973
    rows = torch.randint(0, 207, (count,), generator=generator) * side // 207
    columns = (torch.rand(count, generator=generator) ** 1.3 * side).long()
    sizes = 2.0 ** -torch.randint(18, 29, (count,), generator=generator).float()
    a = torch.zeros(side, side)
    a[rows, columns] = sizes * (1 + torch.rand(count, generator=generator)).bfloat16().float()
    found, true = spectrum(a, torch.float32), torch.linalg.svdvals(a.double())
    assert bool(((found.values - true).abs() <= found.noise).all())
    assert 1.0 <= effective_rank(found.values) <= 207.0


@pytest.mark.parametrize("answer", ["error", "nan"])
def test_what_f32_cannot_do_is_done_in_float64(answer, monkeypatch):
    lapack = torch.linalg.eigvalsh

    def failing(formed):
        if formed.dtype == torch.float64:
            return lapack(formed)
        if answer == "error":
            raise torch.linalg.LinAlgError("failed to converge")
        return torch.full((len(formed),), torch.nan)

    a = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    true = torch.linalg.svdvals(a.double())
    monkeypatch.setattr(torch.linalg, "eigvalsh", failing)
    found = spectrum(a, torch.float32)
    assert bool(((found.values - true).abs() <= found.noise).all())
