import pytest
import torch

from opd_ops.geometry.gram import COLUMNS, gram, spectrum

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
    assert found.after(2) >= 1.0
    assert found.after(3) == 0.0
