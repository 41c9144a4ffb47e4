"""The certificate is never violated; and the numbers are those of float64."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opd_ops.geometry import gemm
from opd_ops.geometry.base import EXTRA, factorise_base
from opd_ops.geometry.certified import Tuned
from opd_ops.geometry.exact import SIDES, principal_angles
from opd_ops.geometry.update import Update

SPECTRA = ("heavy", "flat", "clustered", "geometric", "degenerate", "low_rank")
UPDATES = ("sft", "rl", "low_rank", "dense", "in_space")


def tuned(w0, w, q):
    """The engine on matrices far smaller than those it is chosen for."""
    update = Update(w - w0)
    update.small = False
    return Tuned(w, factorise_base(w0, q), update, gemm.check_path("highest"))


def truth(w0, w, k):
    """Angles by side in degrees, shifts [k], and a bound on the rounding error of these angles themselves."""
    factors = [torch.linalg.svd(a.double(), full_matrices=False) for a in (w0, w)]
    angles = {
        "output": principal_angles(factors[0][0][:, :k], factors[1][0][:, :k]),
        "input": principal_angles(factors[0][2][:k].T, factors[1][2][:k].T),
    }
    spectra = [f[1] for f in factors]
    eps = 4e-15
    blur = sum(math.degrees(min(math.pi / 2, eps * float(s[0] / (s[k - 1] - s[k]).clamp(min=1e-300)))) for s in spectra)
    return angles, (spectra[1] - spectra[0])[:k], blur


def require_within_bounds(found, shift, w0, w, k):
    angles, shifts, blur = truth(w0, w, k)
    assert float((shift.values - shifts).abs().max()) <= shift.error + 1e-14 * float(shift.base[0])
    for side in SIDES:
        here, true = found.angles[side], angles[side]
        assert float((here - true).abs().max()) <= found.angle_error_deg + blur
        for summary in (torch.mean, torch.max, lambda x: x.square().mean().sqrt()):
            assert abs(float(summary(here) - summary(true))) <= found.error_deg[side] + blur


@settings(max_examples=2000, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    spectrum=st.sampled_from(SPECTRA),
    kind=st.sampled_from(UPDATES),
    shape=st.tuples(st.integers(30, 100), st.integers(30, 140)),
    stored=st.sampled_from([torch.bfloat16, torch.float32]),
    power=st.floats(-6.0, -0.3),
    cut=st.floats(0.02, 0.25),
    spare=st.integers(1, 60),
    seed=st.integers(0, 2**20),
)
def test_the_certificate_is_never_violated(spectrum, kind, shape, stored, power, cut, spare, seed, weight, updated):
    r = min(shape)
    k = max(1, int(cut * r))
    q = min(k + spare, r - k - EXTRA)
    if q <= k:
        return
    exact, u, _, v = weight(spectrum, *shape, k, seed)
    w0 = exact.to(stored).float()
    w = updated(w0.double(), u, v, kind, k, 10.0**power, seed + 1).to(stored).float()
    solver = tuned(w0, w, q)
    if solver.undefined(k) is None:
        cuts, shifts = solver.solve((k,))
        require_within_bounds(cuts[k], shifts[k], w0, w, k)


@pytest.mark.parametrize("spectrum", ["heavy", "flat"])
@pytest.mark.parametrize(("kind", "relative"), [("rl", 1e-3), ("rl", 3e-4), ("sft", 1e-2)])
@pytest.mark.parametrize(("shape", "k"), [((600, 800), 64), ((900, 600), 16), ((640, 640), 128)])
def test_angles_are_within_a_thousandth_of_float64(spectrum, kind, relative, shape, k, weight, updated):
    exact, u, _, v = weight(spectrum, *shape, k, 3)
    w0 = exact.bfloat16().float()
    w = updated(w0.double(), u, v, kind, k, relative, 4).bfloat16().float()
    cuts, shifts = tuned(w0, w, max(96, 2 * k)).solve((k,))
    angles, _, _ = truth(w0, w, k)
    for side in SIDES:
        for summary in (torch.mean, torch.max):
            assert float(summary(cuts[k].angles[side])) == pytest.approx(float(summary(angles[side])), rel=1e-3)
    require_within_bounds(cuts[k], shifts[k], w0, w, k)


def test_all_cuts_come_from_one_solve_and_each_is_bounded(weight, updated):
    exact, u, _, v = weight("heavy", 300, 420, 32, 1)
    w0 = exact.float()
    w = updated(w0.double(), u, v, "sft", 32, 3e-3, 2)
    cuts, shifts = tuned(w0, w, 96).solve((1, 5, 16, 32))
    for k in (1, 5, 16, 32):
        require_within_bounds(cuts[k], shifts[k], w0, w, k)
        assert cuts[k].method == "drr-f32"
        assert cuts[k].error_deg["input"] < 0.02 * float(cuts[k].angles["input"][-1])


@pytest.mark.parametrize("degrees", [1e-6, 1e-3, 1.0, 20.0, 45.0])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", [(200, 320), (320, 200)])
def test_a_known_rotation_is_found(degrees, side, shape, planted):
    s = torch.cat([torch.linspace(3, 2, 16), torch.linspace(1, 0.1, 184)]).double()
    given_factors = planted(*shape, s=s)
    # Turned towards a direction outside the base width, so that the tail equation has to find it.
    w0, w = given_factors.weight, given_factors.turned(side, 15, 150, degrees)
    update = Update((w - w0).float())
    update.small = False
    found = Tuned(w.float(), factorise_base(w0, 60), update, gemm.check_path("highest")).solve((16,))[0][16]
    other = SIDES[1 - SIDES.index(side)]
    assert float(found.angles[side][-1]) == pytest.approx(degrees, rel=2e-5)
    assert abs(float(found.angles[side][-1]) - degrees) <= found.error_deg[side]
    assert float(found.angles[other][-1]) <= found.error_deg[other] + 1e-9


def test_a_planted_degenerate_cut_has_a_bound_that_says_nothing(weight, updated):
    _, u, s, v = weight("degenerate", 150, 220, 12, 0)
    w0 = torch.zeros(150, 220)
    w0.diagonal().copy_(s)  # sigma_12 and sigma_13 are equal to the last bit
    w = updated(w0.double(), u, v, "dense", 12, 1e-4, 1)
    cuts, _ = tuned(w0, w, 40).solve((6, 12))
    # The two equal values may be taken in any order: no angle is better than another.
    assert cuts[12].error_deg == {"output": 90.0, "input": 90.0}
    assert cuts[12].fallback is not None


def test_an_unmoved_weight_has_exact_zeros(weight):
    exact, *_ = weight("flat", 120, 180, 8, 0)
    w0 = exact.bfloat16().float()
    cuts, shifts = tuned(w0, w0.clone(), 32).solve((4, 8))
    for k in (4, 8):
        assert set(cuts[k].angles["output"].tolist()) == {0.0}
        assert cuts[k].error_deg == {"output": 0.0, "input": 0.0}
        assert set(shifts[k].values.tolist()) == {0.0}


def test_a_large_update_leans_on_the_spectrum_and_says_so(weight, updated):
    exact, u, _, v = weight("flat", 300, 400, 24, 5)
    w0 = exact.float()
    w = updated(w0.double(), u, v, "sft", 24, 5e-2, 6)
    cuts, shifts = tuned(w0, w, 64).solve((24,))
    require_within_bounds(cuts[24], shifts[24], w0, w, 24)
    assert cuts[24].method in ("drr-f32+spectrum", "factors-f64")
    assert "delta" in cuts[24].fallback


def test_transposition_swaps_the_sides_and_signs_do_not_matter(weight, updated):
    exact, u, _, v = weight("heavy", 220, 300, 16, 8)
    w0 = exact.float()
    w = updated(w0.double(), u, v, "rl", 16, 1e-3, 9)
    one = tuned(w0, w, 48).solve((16,))[0][16]
    other = tuned(w0.T.contiguous(), w.T.contiguous(), 48).solve((16,))[0][16]
    negated = tuned(-w0, -w, 48).solve((16,))[0][16]
    for side, twin in zip(SIDES, reversed(SIDES), strict=True):
        bound = 2 * one.angle_error_deg
        assert float((one.angles[side] - other.angles[twin]).abs().max()) <= bound
        assert float((one.angles[side] - negated.angles[side]).abs().max()) <= bound


def test_permuting_rows_and_columns_changes_nothing_beyond_the_bounds(weight, updated):
    exact, u, _, v = weight("heavy", 220, 300, 16, 8)
    w0 = exact.float()
    w = updated(w0.double(), u, v, "rl", 16, 1e-3, 9)
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.randperm(220, generator=generator), torch.randperm(300, generator=generator)
    one = tuned(w0, w, 48).solve((16,))[0][16]
    other = tuned(w0[rows][:, columns], w[rows][:, columns], 48).solve((16,))[0][16]
    for side in SIDES:
        assert float((one.angles[side] - other.angles[side]).abs().max()) <= 2 * one.angle_error_deg
