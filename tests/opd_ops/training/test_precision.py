"""What the dtypes and the memory of a trainer change of a step, and what not."""

import pytest
import torch

from opd_ops import packing
from opd_ops.recipe import AdamW, Precision, Resources

# A large eps makes the update smooth in the gradient, so that float noise in a tiny gradient cannot flip its sign.
SMOOTH = AdamW(learning_rate=0.1, eps=1.0, weight_decay=0.1, warmup=0, clip=0.5)


@pytest.mark.parametrize("compute", ["fp32", "autocast", "bf16"])
def test_masters_start_at_the_bf16_view_and_serve_it(compute, trainer, weights):
    run = trainer("opd", precision=Precision(compute=compute))
    start = weights(0)[1]
    assert all(torch.equal(w, start[key].bfloat16().float()) for key, w in run.weights().items())
    for _ in range(3):
        run.advance()
    for key, parameter in run.model.named_parameters():
        master = run.weights()[key]
        assert master.dtype == torch.float32
        assert parameter.dtype == (torch.bfloat16 if compute == "bf16" else torch.float32)
        assert torch.equal(parameter.float(), master.bfloat16().float())
    assert any(not torch.equal(w, w.bfloat16().float()) for w in run.weights().values())


def test_fp32_weights_are_served_as_they_are(trainer, weights):
    run = trainer("sft", precision=Precision(weights="fp32"))
    start = weights(0)[1]
    assert all(torch.equal(w, start[key]) for key, w in run.weights().items())
    run.advance()
    assert all(torch.equal(p, run.weights()[key]) for key, p in run.model.named_parameters())


@pytest.mark.parametrize("name", ["opd", "rlvr"])
def test_autocast_is_the_same_step_to_bf16(name, trainer):
    exact, coarse = (
        trainer(name, precision=Precision(compute=compute), optimizer=SMOOTH).advance().row
        for compute in ("fp32", "autocast")
    )
    # bf16 keeps 8 bits: 0.4 % a product, through two layers, their backward and sums of both signs.
    assert coarse["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.1)
    assert coarse["grad_norm"] != exact["grad_norm"]


@pytest.mark.parametrize("name", ["sft", "opd", "mix"])
def test_recomputed_activations_give_the_same_bits(name, trainer):
    plain, frugal = trainer(name), trainer(name, resources=Resources(checkpoint_activations=True))
    for _ in range(2):
        assert plain.advance() == frugal.advance()
    assert all(torch.equal(w, frugal.weights()[key]) for key, w in plain.weights().items())


@pytest.mark.parametrize("name", ["sft", "opd", "rlvr", "mix"])
def test_padding_that_is_left_out_changes_a_step_by_rounding(name, trainer, monkeypatch):
    ours = trainer(name, optimizer=SMOOTH)
    assert packing.packs(ours.model)
    numbers = lambda run: {key: value for key, value in run.advance().row.items() if value is not None}
    found = numbers(ours)
    monkeypatch.setattr(packing, "packs", lambda model: False)
    padded = trainer(name, optimizer=SMOOTH)
    assert found == pytest.approx(numbers(padded), rel=1e-5, abs=1e-7)
    for key, weight in padded.weights().items():
        assert torch.allclose(ours.weights()[key], weight, rtol=1e-5, atol=1e-7), key
