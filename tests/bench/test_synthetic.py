"""The regimes hold at every size: shares of unchanged weights do not depend on it, nss falls with its root."""

import math

import pytest
import torch

from opd_ops.geometry.exact import factorise, principal_angles
from tests.bench import synthetic

EXTENT = 512


@pytest.fixture(scope="module", params=synthetic.WEIGHTS)
def w0(request):
    return synthetic.weight(request.param, EXTENT, EXTENT, 0)


@pytest.mark.parametrize(("kind", "unchanged", "drift"), [("rl", 0.776, 1.8e-5), ("sft", 0.177, 2.1e-4)])
def test_updates_are_in_the_regimes_of_the_papers(w0, kind, unchanged, drift):
    w_t = synthetic.updated(w0, kind, synthetic.UPDATES[kind].rel, 1)
    assert w_t.dtype == w0.dtype == torch.bfloat16
    assert float((w_t == w0).float().mean()) == pytest.approx(unchanged, abs=0.01)
    before, after = (factorise(w.double(), 16) for w in (w0, w_t))
    nss = float((after.s - before.s).norm() / before.s.norm())
    # Seen at 2048; an update without structure along W0 shifts each sigma by ||dW|| / n, so nss goes as n^-1/2.
    assert nss == pytest.approx(drift * math.sqrt(2048 / EXTENT), rel=0.2)
    assert 0 < principal_angles(before.u, after.u)[-1] < {"rl": 3, "sft": 30}[kind]


@pytest.mark.parametrize("kind", synthetic.UPDATES)
def test_an_update_has_its_size_and_its_low_rank_share(kind):
    # Large enough that rounding to bf16 adds nothing to speak of.
    rel, w0 = 1.0, synthetic.weight("flat", EXTENT, 2 * EXTENT, 0)
    delta = synthetic.updated(w0, kind, rel, 1).double() - w0.double()
    assert float(delta.norm() / w0.double().norm()) == pytest.approx(rel, rel=0.01)
    s, update = torch.linalg.svdvals(delta), synthetic.UPDATES[kind]
    edge = math.sqrt(1 - update.energy) * (1 + math.sqrt(0.5)) / math.sqrt(EXTENT) * float(delta.norm())
    assert int((s > 1.02 * edge).sum()) == update.rank
    # The dense part has little in any 8 or 16 directions.
    assert float(s[: update.rank].square().sum() / s.square().sum()) == pytest.approx(update.energy, abs=0.1)


def test_heavy_decays_and_flat_is_a_bulk_with_eight_spikes():
    heavy, flat = (torch.linalg.svdvals(synthetic.weight(kind, 256, EXTENT, 0).double()) for kind in synthetic.WEIGHTS)
    scale = synthetic.SCALE * math.sqrt(EXTENT)
    ratios = heavy[:16] / heavy[0]
    expected = torch.arange(1, 17).double() ** -synthetic.DECAY
    # The bulk adds to each sigma, more to the small ones.
    assert torch.all(ratios >= expected * 0.97) and torch.all(ratios <= expected * 1.3)
    assert float(flat[8] / flat[7]) < 0.65 < 0.95 < float(flat[9] / flat[8])
    assert float(flat[7]) > 1.5 * float(flat[8]) and float(flat[0]) < 4.5 * scale * (1 + math.sqrt(0.5))


@pytest.mark.parametrize("kind", synthetic.WEIGHTS)
@pytest.mark.parametrize(("m", "n"), [(96, 160), (160, 96), (4, 3)])
def test_every_shape_is_made_and_repeats_by_seed(kind, m, n):
    first, again, other = (synthetic.weight(kind, m, n, seed) for seed in (0, 0, 1))
    assert first.shape == (m, n) and torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.float().square().mean().sqrt()) == pytest.approx(synthetic.SCALE, rel=0.01)
    update, same = (synthetic.updated(first, "rl", 0.1, 3) for _ in range(2))
    assert torch.equal(update, same) and not torch.equal(update, first)


def test_other_kinds_are_refused():
    with pytest.raises(ValueError, match="weight 'light' is not one of heavy, flat"):
        synthetic.weight("light", 4, 4, 0)
    with pytest.raises(ValueError, match="update 'opd' is not one of rl, sft"):
        synthetic.updated(torch.zeros(4, 4), "opd", 1.0, 0)
