import math

import numpy as np
import pytest
import torch
from torch import nn

from opd_ops.recipe import AdamW
from opd_ops.training.optimizer import Masters, learning_rate

SPEC = AdamW(learning_rate=1e-2, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.3, clip=1.5)


class Model(nn.Module):
    """A matrix, a vector and a stack of matrices, in a dtype of choice."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.matrix = nn.Parameter(torch.empty(3, 4, dtype=dtype))
        self.norm = nn.Parameter(torch.empty(5, dtype=dtype))
        self.stack = nn.Parameter(torch.empty(2, 3, 2, dtype=dtype))


def start(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=generator) for name, p in Model().named_parameters()}


def make(spec=SPEC, weights=None, dtype=torch.float32):
    model = Model(dtype)
    return model, Masters(model, start() if weights is None else weights, spec)


def accumulate(model, masters, gradients, term="any"):
    """One backward pass whose gradients are these."""
    for name, p in model.named_parameters():
        p.grad = gradients[name].to(p.dtype, copy=True)
    masters.accumulate(term)


def push(model, masters, gradients):
    """A whole step's gradient."""
    accumulate(model, masters, gradients)
    masters.combine({"any": 1.0})


def draws(step):
    return {name: (0.3 + step) * g for name, g in start(seed=100 + step).items()}


def reference(spec, steps, rates):
    """AdamW in float64 by its formula: clip, decay, moments, bias correction."""
    w = {name: x.double().numpy() for name, x in start().items()}
    m, v = ({name: np.zeros_like(x) for name, x in w.items()} for _ in range(2))
    norms = []
    for t in range(1, steps + 1):
        g = {name: x.double().numpy() for name, x in draws(t).items()}
        norms.append(math.sqrt(sum((x**2).sum() for x in g.values())))
        for name in w:
            clipped = g[name] * min(1.0, spec.clip / norms[-1])
            m[name] = spec.betas[0] * m[name] + (1 - spec.betas[0]) * clipped
            v[name] = spec.betas[1] * v[name] + (1 - spec.betas[1]) * clipped**2
            mean, square = m[name] / (1 - spec.betas[0] ** t), v[name] / (1 - spec.betas[1] ** t)
            decay = 1 - rates[t - 1] * spec.weight_decay if w[name].ndim >= 2 else 1.0
            w[name] = w[name] * decay - rates[t - 1] * mean / (np.sqrt(square) + spec.eps)
    return w, norms


def test_steps_equal_the_formula_in_float64():
    model, masters = make()
    rates = [1e-2, 3e-2, 2e-2, 1e-3, 5e-2]
    expected, norms = reference(SPEC, 5, rates)
    for t, rate in enumerate(rates, 1):
        push(model, masters, draws(t))
        assert masters.clip() == pytest.approx(norms[t - 1], rel=1e-6)
        masters.step(rate)
    for name, w in masters.masters.items():
        # fp32 moments and weights: a few ulp a step.
        assert np.allclose(w.double().numpy(), expected[name], rtol=1e-5, atol=1e-6), name


def test_decay_is_decoupled_and_acts_on_matrices_only():
    model, masters = make()
    before = {name: w.clone() for name, w in masters.masters.items()}
    push(model, masters, {name: torch.zeros_like(w) for name, w in before.items()})
    masters.step(0.1)
    assert torch.equal(masters.masters["norm"], before["norm"])
    for name in ("matrix", "stack"):
        assert torch.allclose(masters.masters[name], before[name] * (1 - 0.1 * 0.3), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("scale", "shrinks"), [(1e-3, False), (1e3, True)])
def test_clipping_scales_the_whole_gradient_to_its_norm(scale, shrinks):
    model, masters = make()
    gradients = {name: scale * g for name, g in draws(1).items()}
    push(model, masters, gradients)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))
    assert masters.clip() == pytest.approx(norm, rel=1e-6)
    factor = SPEC.clip / norm if shrinks else 1.0
    for name, g in gradients.items():
        assert torch.allclose(masters.masters[name].grad, g * factor, rtol=1e-5, atol=0)


def test_gradients_of_micro_batches_add_up_in_fp32():
    model, masters = make(dtype=torch.bfloat16)
    small = {name: torch.full_like(w, 2.0**-9) for name, w in start().items()}
    accumulate(model, masters, {name: torch.ones_like(w) for name, w in start().items()})
    for _ in range(4):
        accumulate(model, masters, small)
    for p in model.parameters():
        assert p.grad is None
    masters.combine({"any": 1.0})
    for w in masters.masters.values():
        assert w.grad.dtype == torch.float32
        assert torch.equal(w.grad, torch.full_like(w, 1 + 4 * 2.0**-9))  # bf16 would have stayed at 1


def test_terms_are_kept_apart_until_their_coefficients_are_known():
    model, masters = make()
    first, second = draws(1), draws(2)
    for _ in range(2):  # micro-batches
        accumulate(model, masters, first, "opd")
        accumulate(model, masters, second, "rlvr")
    found = masters.combine({"opd": 0.25, "rlvr": 3.0})
    flat = [2 * torch.cat([g[name].flatten() for name in masters.masters]).double() for g in (first, second)]
    assert found["opd_grad_norm"] == pytest.approx(float(flat[0].norm()), rel=1e-6)
    assert found["rlvr_grad_norm"] == pytest.approx(float(flat[1].norm()), rel=1e-6)
    cosine = float(flat[0] @ flat[1] / flat[0].norm() / flat[1].norm())
    assert found["grad_cosine"] == pytest.approx(cosine, abs=1e-6)
    for name, w in masters.masters.items():
        assert torch.allclose(w.grad, 2 * (0.25 * first[name] + 3.0 * second[name]), rtol=1e-6)


def test_a_term_without_any_gradient_has_no_cosine():
    model, masters = make()
    accumulate(model, masters, draws(1), "opd")
    accumulate(model, masters, {name: torch.zeros_like(w) for name, w in start().items()}, "rlvr")
    assert masters.combine({"opd": 1.0, "rlvr": 1.0})["grad_cosine"] == 0.0


def test_a_step_and_a_discard_clear_the_gradients():
    model, masters = make()
    for clear in (lambda: masters.step(1e-3), masters.discard):
        push(model, masters, draws(1))
        clear()
        assert all(w.grad is None for w in masters.masters.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_served_weights_are_the_masters_rounded_to_bf16(dtype):
    model, masters = make(dtype=dtype)
    for t in range(1, 4):
        push(model, masters, draws(t))
        masters.step(1e-2)
        for name, p in model.named_parameters():
            assert p.dtype == dtype
            assert torch.equal(p.float(), masters.masters[name].to(torch.bfloat16).float())
    assert any(not torch.equal(w, w.bfloat16().float()) for w in masters.masters.values())


def test_small_updates_gather_in_the_masters_until_bf16_moves():
    spec = AdamW(learning_rate=1e-4, eps=1e-12, clip=math.inf)
    model, masters = make(spec, {name: torch.ones_like(w) for name, w in start().items()}, torch.bfloat16)
    ones = {name: torch.ones_like(w) for name, w in start().items()}
    seen = []
    for _ in range(60):
        push(model, masters, ones)
        masters.step(1e-4)
        seen.append(model.norm[0].item())
    # A constant gradient moves by the rate each step; below 1 the bf16 grid has spacing 2^-8, and half of it rounds.
    assert float(masters.masters["norm"][0]) == pytest.approx(1 - 60e-4, abs=1e-6)
    assert seen[:19] == [1.0] * 19
    assert seen[20:58] == [1 - 2.0**-8] * 38
    assert seen[-1] == 1 - 2 * 2.0**-8


def test_masters_are_copies():
    weights = start()
    model, masters = make(weights=weights)
    push(model, masters, draws(1))
    masters.step(0.1)
    assert all(torch.equal(weights[name], w) for name, w in start().items())


def test_state_restores_bit_for_bit_into_a_new_optimizer():
    model, masters = make()
    for t in range(1, 4):
        push(model, masters, draws(t))
        masters.step(1e-2)
    state = {name: x.clone() for name, x in masters.state().items()}
    kinds = ("master", "exp_avg", "exp_avg_sq")
    assert set(state) == {f"{kind}/{name}" for kind in kinds for name in start()}
    twin, other = make(weights=start(9))
    push(twin, other, draws(8))
    other.step(1.0)
    other.restore(state, 3)
    for name, p in twin.named_parameters():
        assert torch.equal(p, state[f"master/{name}"].bfloat16().float())
    for t in range(4, 7):
        for m, o in ((model, masters), (twin, other)):
            push(m, o, draws(t))
            o.clip()
            o.step(1e-2)
    assert masters.state().keys() == other.state().keys()
    assert all(torch.equal(x, other.state()[name]) for name, x in masters.state().items())


def test_a_restored_state_is_not_shared_with_its_source():
    model, masters = make()
    push(model, masters, draws(1))
    masters.step(1e-2)
    state = {name: x.clone() for name, x in masters.state().items()}
    kept = {name: x.clone() for name, x in state.items()}
    masters.restore(state, 1)
    push(model, masters, draws(2))
    masters.step(1e-2)
    assert all(torch.equal(x, kept[name]) for name, x in state.items())


def test_the_start_has_masters_and_no_moments_and_restores():
    model, masters = make()
    state = {name: x.clone() for name, x in masters.state().items()}
    assert set(state) == {f"master/{name}" for name in start()}
    push(model, masters, draws(1))
    masters.step(1e-2)
    masters.restore(state, 0)
    assert set(masters.state()) == set(state)
    fresh_model, fresh = make()
    for m, o in ((model, masters), (fresh_model, fresh)):
        push(m, o, draws(2))
        o.step(1e-2)
    assert all(torch.equal(x, fresh.state()[name]) for name, x in masters.state().items())


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rate_warms_up_in_equal_parts_to_its_peak(schedule):
    spec = AdamW(learning_rate=0.4, warmup=4, schedule=schedule)
    assert [learning_rate(spec, step, 20) for step in (1, 2, 3, 4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_a_constant_rate_stays():
    spec = AdamW(learning_rate=0.4, warmup=4)
    assert {learning_rate(spec, step, 20) for step in range(4, 21)} == {0.4}


def test_a_cosine_rate_falls_to_a_tenth():
    spec = AdamW(learning_rate=0.4, warmup=4, schedule="cosine")
    rates = [learning_rate(spec, step, 20) for step in range(4, 21)]
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(spec, 12, 20) == pytest.approx(0.4 * 0.55)  # half-way: the mean of 1 and a tenth
    assert learning_rate(spec, 8, 20) == pytest.approx(0.4 * (0.1 + 0.45 * (1 + math.sqrt(0.5))))
    assert rates[-1] == pytest.approx(0.04)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_without_warm_up_the_first_rate_is_already_whole(schedule):
    spec = AdamW(learning_rate=0.4, warmup=0, schedule=schedule)
    assert 0.39 < learning_rate(spec, 1, 20) <= 0.4
    assert learning_rate(AdamW(learning_rate=0.4, warmup=30, schedule=schedule), 20, 20) == pytest.approx(0.4 * 20 / 30)
