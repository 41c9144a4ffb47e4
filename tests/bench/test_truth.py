"""The reference's own formulas, on matrices whose answer is known."""

import math

import pytest
import torch

from tests.bench import engine, truth


def test_an_update_of_known_singular_values():
    w0, w_t = torch.eye(5, 7), torch.eye(5, 7)
    w_t[0, 0], w_t[1, 1] = 5.0, 3.0
    found = truth.update(w0, w_t)
    p, energy = (2 / 3, 1 / 3), (16 / 20, 4 / 20)
    assert found == {
        "frobenius": pytest.approx(math.sqrt(20)),
        "relative_norm": pytest.approx(2.0),
        "spectral_norm": pytest.approx(4.0),
        "stable_rank": pytest.approx(20 / 16),
        "effective_rank": pytest.approx(math.exp(-sum(x * math.log(x) for x in p))),
        "effective_rank_energy": pytest.approx(math.exp(-sum(x * math.log(x) for x in energy))),
    }
    assert truth.unchanged(w0, w_t) == 33 / 35
    before, after = truth.factors(w0, 2), truth.factors(w_t, 2)
    assert truth.nss(before, after) == pytest.approx(2.0)


@pytest.mark.parametrize("name", engine.SETS)
def test_every_set_gives_its_values(name):
    w0 = torch.diag(torch.arange(9.0, 3.0, -1.0)).bfloat16()
    w_t = w0.clone()
    w_t[0, 5] = 0.5
    found = engine.values(engine.diagnose(engine.prepare(w0, 2, engine.SETS[name]), w_t))
    needed = {"unchanged", "stable_rank", *(f"{side} {it}" for side in truth.SIDES for it in ("max_deg", "mean_deg"))}
    needed |= {"effective_rank"} if name != "rotation" else set()
    needed |= {"nss"} if name == "with exact NSS" else set()
    assert needed <= set(found)
    assert found["unchanged"] == 35 / 36 and found["stable_rank"] == pytest.approx(1.0)
