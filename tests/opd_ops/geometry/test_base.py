import pytest
import torch

from opd_ops.geometry.base import GUARD, BaseFactors, digest, factor_width, factorise_base, is_certifiable
from opd_ops.geometry.exact import principal_angles


@pytest.mark.parametrize("shape", [(80, 200), (200, 80), (120, 120)])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_factors_are_those_of_the_matrix_within_the_residual(shape, stored, planted):
    w = planted(*shape).weight.to(stored)
    found = factorise_base(w, 24)
    a = (w.T if found.turned else w).double()
    u, s, vt = torch.linalg.svd(a, full_matrices=False)
    assert found.turned == (shape[0] > shape[1])
    assert (found.u.shape, found.v.shape, found.s.shape) == ((len(a), 24), (a.shape[1], 24), (len(a),))
    assert bool(((found.s - s).abs() <= found.residual + found.spectrum.noise).all())
    residual = torch.hypot(
        (a @ found.v - found.u * found.s[:24]).norm(), (a.T @ found.u - found.v * found.s[:24]).norm()
    )
    assert float(residual) <= found.residual < 1e-11 * float(s[0])
    assert float(principal_angles(found.u, u[:, :24])[-1]) < 1e-9
    assert float(principal_angles(found.v, vt[:24].T)[-1]) < 1e-9


def test_the_guard_follows_the_factors_as_far_as_there_are_vectors(planted):
    w = planted(150, 200).weight
    found = factorise_base(w, 40)
    u = torch.linalg.svd(w, full_matrices=False)[0]
    count = min(110, 150 // GUARD)
    assert found.guard.shape == (150, count)
    overlap = (found.guard.double().T @ u[:, 40 : 40 + count]).diagonal().abs()
    assert float(overlap.min()) > 0.99  # bf16 keeps directions to a few parts in a thousand
    u32, _, guard = found.frames
    assert float((u32.T @ guard).abs().max()) < 1e-6


def test_rank_deficient_and_zero_weights_are_finite(planted):
    s = torch.zeros(60, dtype=torch.float64)
    for rank in (0, 3):
        s[:rank] = 1.0
        found = factorise_base(planted(60, 90, s=s).weight, 20)
        assert all(bool(torch.isfinite(tensor).all()) for tensor in found.tensors().values())
        assert float((found.v.T @ found.v - torch.eye(20)).abs().max()) < 1e-12


def test_storage_round_trips(planted):
    found = factorise_base(planted(90, 60).weight, 20)
    again = BaseFactors.from_tensors(found.tensors())
    assert (again.residual, again.turned) == (found.residual, found.turned)
    assert all(torch.equal(a, b) for a, b in zip(again.tensors().values(), found.tensors().values(), strict=True))


def test_digests_tell_weights_shapes_and_dtypes_apart():
    w = torch.arange(12.0).reshape(3, 4)
    other = w.clone()
    other[2, 3] += 1
    ones = [w, other, w.reshape(4, 3), w.bfloat16(), w.double()]
    assert len({digest(one) for one in ones}) == len(ones)
    assert digest(w) == digest(w.T.contiguous().T)


def test_widths_and_where_rayleigh_ritz_pays():
    assert [factor_width(cuts) for cuts in ((), (16,), (16, 64), (128,))] == [96, 96, 128, 256]
    assert is_certifiable((576, 1536), (16, 64))
    assert not is_certifiable((512, 4096), (16,))
    assert not is_certifiable((576, 1536), (128,))
    assert is_certifiable((4096, 1024), (128,))
