"""The recipe in use is right where it can be: large gaps and large angles."""

import math

import pytest
import torch

from opd_ops.geometry.exact import SIDES, factorise, principal_angles
from tests.bench.plain import arccos_angles, gram, plain

K = 3


@pytest.fixture(params=[(60, 40), (40, 60)])
def pair(request):
    """Two well-separated matrices whose top-3 subspaces are turned by 0, 0 and 20 degrees, in exact f32 values."""
    m, n = request.param
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(extent, extent, generator=generator).double()).Q for extent in (m, n))
    s = torch.cat([torch.tensor([9.0, 8.0, 7.0]), torch.linspace(1.0, 0.1, 37)]).double()
    turn = torch.eye(m).double()
    angle = math.radians(20)
    turn[2:4, 2:4] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    w0 = (u[:, :40] * s) @ v[:, :40].T
    return w0.float(), (u @ turn @ u.T @ w0).float()


def angles(pair):
    """Principal angles in degrees, ascending, by side, in float64."""
    before, after = (factorise(w.double(), K) for w in pair)
    return {side: principal_angles(before.basis(side), after.basis(side)) for side in SIDES}


def test_the_recipe_agrees_with_the_reference_on_a_well_separated_matrix(pair):
    w0, w_t = pair
    found = plain(w0, w_t, K)
    true = angles(pair)
    assert true["output"].tolist() == pytest.approx([0, 0, 20], abs=1e-4)
    assert true["input"].tolist() == pytest.approx([0, 0, 0], abs=1e-4)
    # f32: an angle of 20 degrees to 1e-5, one of 0 only to the root of eps, 0.02 degrees and more.
    assert found.output_deg.tolist() == pytest.approx([0, 0, 20], abs=0.1)
    assert float(found.output_deg[-1]) == pytest.approx(20, abs=1e-3)
    assert float(found.input_deg[-1]) == pytest.approx(0, abs=0.1)
    s = factorise(w_t.double() - w0.double(), 0).s
    assert found.stable_rank == pytest.approx(float(s.square().sum() / s[0] ** 2), rel=1e-5)
    assert found.effective_rank == pytest.approx(float(torch.special.entr(s / s.sum()).sum().exp()), rel=1e-4)
    assert found.nss < 1e-6 and found.unchanged == float((w0 == w_t).float().mean())


def test_small_angles_are_lost_in_f32():
    angle = math.radians(0.005)
    q0, q1 = torch.eye(50)[:, :1], torch.eye(50)[:, :1].clone()
    q1[:2, 0] = torch.tensor([math.cos(angle), math.sin(angle)])
    assert principal_angles(q0.double(), q1.double()).tolist() == pytest.approx([0.005], rel=1e-4)
    assert arccos_angles(q0, q1).tolist() == [0.0]


def test_equal_weights_are_unchanged_and_do_not_drift():
    w = torch.eye(6)
    found = plain(w, w, 2)
    assert found.unchanged == 1 and found.nss == 0


def test_the_gram_rival_finds_what_the_reference_does(pair):
    before, after = (gram(w, K) for w in pair)
    true = angles(pair)
    for side, degrees in before.angles(after).items():
        assert degrees.tolist() == pytest.approx(true[side].tolist(), abs=1e-9)
    assert (len(before.u), len(before.v)) == pair[0].shape
