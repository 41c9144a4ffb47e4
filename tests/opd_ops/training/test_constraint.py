"""Masters with a constraint, against AdamW in float64 by its formula; then what a constraint guarantees and refuses."""

import math

import pytest
import torch
from torch import nn

from opd_ops.recipe import AdamW, Constraint, Random
from opd_ops.training.constraint import stored_bases
from opd_ops.training.optimizer import Masters
from opd_ops.training.subspace import Subspace

Q, GATE, EMBED, NORM = (
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.mlp.gate_proj.weight",
    "model.embed_tokens.weight",
    "model.norm.weight",
)
SHAPES = {Q: (12, 8), GATE: (6, 8), EMBED: (9, 8), NORM: (8,)}
CONFINED = (Q, GATE)
K = 3
SIDES, MODES = ("right", "left", "both"), ("gradient", "update", "compressed", "matched")
COMPRESSED = ("compressed", "matched")  # the latter with steps as long as those of whole matrices
SPEC = AdamW(learning_rate=1e-2, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.3, clip=1.5)
RATES = (2e-3, 1e-2, 3e-2, 1e-3, 5e-3)


class Model(nn.Module):
    """Two projections, an embedding and a norm under their names of Hugging Face."""

    def __init__(self):
        super().__init__()
        self.parts = {name: nn.Parameter(torch.empty(shape)) for name, shape in SHAPES.items()}

    def named_parameters(self, *_, **__):
        yield from self.parts.items()


def randoms(seed, shapes=SHAPES, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}


def start():
    return randoms(0)


def gradients(step):
    return {name: (0.3 + step) * g for name, g in randoms(100 + step).items()}


def bases(side, rank=K, seed=7):
    found = {}
    for i, name in enumerate(CONFINED):
        parts = {}
        for part, size in (("left", SHAPES[name][0]), ("right", SHAPES[name][1])):
            if side in (part, "both"):
                parts[part] = torch.linalg.qr(randoms(seed + i, {part: (size, rank)}, torch.float64)[part]).Q
        found[name] = Subspace(**parts)
    return found


def make(side="right", mode="gradient", others="free", spec=SPEC, spaces=None, rank=K, constraint=True):
    model = Model()
    how = {"mode": "compressed", "matched": True} if mode == "matched" else {"mode": mode}
    limits = Constraint(basis=Random(), rank=rank, side=side, others=others, **how) if constraint else None
    spaces = bases(side, rank) if spaces is None else spaces
    return model, Masters(model, start(), spec, rounded=False, constraint=limits, bases=spaces)


def advance(model, masters, given, rate):
    """One step with these gradients; (the norm before clipping, what the constraint measured)."""
    for name, p in model.named_parameters():
        p.grad = given[name].clone() if p.requires_grad else None
    masters.accumulate("any")
    masters.combine({"any": 1.0})
    measured = masters.confine()
    norm = masters.clip()
    return norm, measured | masters.step(rate)


def reference(side, mode, others, spec=SPEC, rates=RATES, given=gradients):
    """Clip, decay, moments, bias correction and projection in float64, as the modes are documented."""
    spaces = bases(side)
    w = {name: x.double() for name, x in start().items()}
    m, v, norms = {}, {}, []
    for t, rate in enumerate(rates, 1):
        g = {name: x.double() for name, x in given(t).items() if name in CONFINED or others == "free"}
        for name in CONFINED:
            g[name] = spaces[name].compress(g[name]) if mode in COMPRESSED else spaces[name].project(g[name])
        norms.append(math.sqrt(sum(float(x.square().sum()) for x in g.values())))
        for name, x in g.items():
            x = x * min(1.0, spec.clip / norms[-1])
            m[name] = spec.betas[0] * m.get(name, 0 * x) + (1 - spec.betas[0]) * x
            v[name] = spec.betas[1] * v.get(name, 0 * x) + (1 - spec.betas[1]) * x**2
            mean, square = m[name] / (1 - spec.betas[0] ** t), v[name] / (1 - spec.betas[1] ** t)
            adam = -rate * mean / (square.sqrt() + spec.eps)
            decay = -rate * spec.weight_decay * w[name] * (w[name].ndim > 1)
            if name not in CONFINED or mode == "gradient":
                w[name] = w[name] + decay + adam
            elif mode == "update":
                w[name] = w[name] + spaces[name].project(decay + adam)
            else:
                stretch = math.sqrt(w[name].numel() / adam.numel()) if mode == "matched" else 1.0
                w[name] = w[name] + spaces[name].expand(spaces[name].compress(decay) + stretch * adam)
    return w, norms


@pytest.mark.parametrize("others", ["free", "frozen"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("mode", MODES)
def test_steps_equal_the_formula_in_float64(mode, side, others):
    model, masters = make(side, mode, others)
    expected, norms = reference(side, mode, others)
    for t, rate in enumerate(RATES, 1):
        norm, _ = advance(model, masters, gradients(t), rate)
        assert norm == pytest.approx(norms[t - 1], rel=1e-6)
    for name, w in masters.masters.items():
        # fp32 moments and weights: a few ulp a step.
        assert torch.allclose(w.double(), expected[name], rtol=1e-5, atol=1e-6), name
        assert torch.equal(model.parts[name].data, w)
        assert torch.equal(w, start()[name]) == (others == "frozen" and name not in CONFINED), name


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("mode", ["update", *COMPRESSED])
@pytest.mark.parametrize(("rate", "decay", "clip"), [(3e-5, 0.3, 1.5), (1e-2, 0.0, math.inf), (1e-6, 10.0, 1e-3)])
def test_a_confined_update_stays_in_its_subspace_and_the_masters_are_its_rounding(mode, side, rate, decay, clip):
    spec = AdamW(learning_rate=rate, weight_decay=decay, clip=clip, betas=(0.8, 0.9))
    model, masters = make(side, mode, spec=spec)
    spaces = bases(side)
    for t in range(1, 21):
        _, found = advance(model, masters, gradients(t), rate)
        assert 0 < found["leaked_step"] < 1e-6 and 0 < found["leaked"] < 1e-6
    for name in CONFINED:
        update = masters.masters[name].double() - start()[name].double()
        assert float(update.norm()) > 0
        outside = update - spaces[name].project(update)
        # One rounding to fp32 of each weight: half an ulp, 2^-24 of its size; 4 at most here.
        assert float(outside.abs().max()) < 2 * 4 * 2.0**-24


@pytest.mark.parametrize("side", SIDES)
def test_without_float64_the_leak_would_be_that_of_rounding(side):
    """What the modes are for: the same update in fp32 alone leaks past 1e-6."""
    model, masters = make(side, "update", spec=AdamW(learning_rate=3e-5))
    for t in range(1, 6):
        advance(model, masters, gradients(t), 3e-5)
    spaces, outside, whole = bases(side), 0.0, 0.0
    for name in CONFINED:
        update = masters.masters[name].double() - start()[name].double()
        outside += float((update - spaces[name].project(update)).square().sum())
        whole += float(update.square().sum())
    assert math.sqrt(outside / whole) > 1e-5


@pytest.mark.parametrize("side", SIDES)
def test_the_leak_of_the_gradient_mode_is_that_of_the_weights_and_not_small(side):
    model, masters = make(side, "gradient")
    spaces, before = bases(side), start()
    for t in range(1, 4):
        _, found = advance(model, masters, gradients(t), 1e-2)
        now = {name: w.clone() for name, w in masters.masters.items()}
        for column, since in (("leaked_step", before), ("leaked", start())):
            moved = {name: now[name].double() - since[name].double() for name in CONFINED}
            out = sum(float((d - spaces[name].project(d)).square().sum()) for name, d in moved.items())
            assert found[column] == pytest.approx(math.sqrt(out / sum(float(d.square().sum()) for d in moved.values())))
        assert found["leaked_step"] > 0.1
        before = now


def test_a_linear_optimizer_without_decay_does_not_leak_even_then():
    """A large eps makes Adam's scaling constant: -rate g / eps, and a projected gradient is a projected step."""
    spec = AdamW(learning_rate=1.0, betas=(0.0, 0.0), eps=1e4, clip=math.inf)
    model, masters = make("right", "gradient", spec=spec)
    _, found = advance(model, masters, gradients(1), 1e4)
    for name in CONFINED:
        expected = -bases("right")[name].project(gradients(1)[name])
        moved = masters.masters[name].double() - start()[name].double()
        assert torch.allclose(moved, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))  # |g| / eps
    assert found["leaked_step"] < 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_what_is_removed_is_the_sine_of_the_gradients_angle(mode):
    model, masters = make("right", mode)
    spaces, given = bases("right"), gradients(1)
    for name in CONFINED:  # 3 parts inside, 4 outside; both matrices count together
        inside = spaces[name].project(given[name])
        outside = given[name].double() - inside
        given[name] = (3 * inside / inside.norm() + 4 * outside / outside.norm()).float()
    norm, found = advance(model, masters, given, 1e-3)
    assert found["removed"] == pytest.approx(0.8, rel=1e-6)
    free = sum(float(g.double().square().sum()) for name, g in given.items() if name not in CONFINED)
    assert norm == pytest.approx(math.sqrt(2 * 9 + free), rel=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_a_gradient_inside_the_basis_is_left_alone(side):
    spaces = bases(side)
    inside = lambda t: gradients(t) | {name: spaces[name].project(gradients(t)[name]).float() for name in CONFINED}
    spec = AdamW(learning_rate=1e-2, eps=1.0, clip=1.5)  # smooth, so that an ulp of a gradient stays one
    model, masters = make(side, "gradient", spec=spec)
    plain_model, plain = make(constraint=False, spec=spec)
    for t in range(1, 4):
        _, found = advance(model, masters, inside(t), 1e-2)
        advance(plain_model, plain, inside(t), 1e-2)
        assert found["removed"] < 1e-6  # of gradients rounded to fp32
    for name, w in masters.masters.items():
        assert torch.allclose(w, plain.masters[name], rtol=0, atol=1e-6)


def whole_space(side, turn):
    """Bases of the whole space: of `turn` random rotations, or else signed unit vectors in another order."""
    generator, found = torch.Generator().manual_seed(3), {}
    for name in CONFINED:
        parts = {}
        for part, size in (("left", SHAPES[name][0]), ("right", SHAPES[name][1])):
            if side == part:
                random = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
                unit = -torch.eye(size, dtype=torch.float64)[torch.randperm(size, generator=generator)]
                parts[part] = random if turn else unit
        found[name] = Subspace(**parts)
    return found


@pytest.mark.parametrize("mode", MODES)
def test_the_whole_space_as_unit_vectors_is_unconstrained_training_to_the_bit(mode):
    """compressed: to the rounding of fp32, since its coefficients add up in float64."""
    spaces = whole_space("right", turn=False)
    model, masters = make("right", mode, spaces=spaces, rank=8)
    plain_model, plain = make(constraint=False)
    for t in range(1, 8):
        norm, found = advance(model, masters, gradients(t), RATES[t % 5])
        wanted, _ = advance(plain_model, plain, gradients(t), RATES[t % 5])
        assert (found["leaked_step"], found["leaked"]) == (0.0, 0.0)
        assert found["removed"] < 1e-7  # the square root of what two float64 sums differ by
        assert norm == (wanted if mode not in COMPRESSED else pytest.approx(wanted, rel=1e-6))
    for name, w in masters.masters.items():
        if mode in COMPRESSED:
            assert torch.allclose(w, plain.masters[name], rtol=0, atol=7 * 4 * 2.0**-23)
        else:
            assert torch.equal(w, plain.masters[name])


@pytest.mark.parametrize("mode", ["gradient", "update"])
def test_the_whole_space_in_a_random_basis_is_unconstrained_training_to_rounding(mode):
    spec = AdamW(learning_rate=1e-2, eps=1.0, weight_decay=0.3, clip=1.5)
    model, masters = make("right", mode, spec=spec, spaces=whole_space("right", turn=True), rank=8)
    plain_model, plain = make(constraint=False, spec=spec)
    for t in range(1, 8):
        _, found = advance(model, masters, gradients(t), 1e-2)
        advance(plain_model, plain, gradients(t), 1e-2)
        assert found["removed"] < 1e-7 and found["leaked"] < 1e-7
    for name, w in masters.masters.items():
        assert torch.allclose(w, plain.masters[name], rtol=0, atol=1e-6)


def test_a_matched_step_is_as_long_as_that_of_the_whole_matrix():
    """The first step of Adam is the learning rate in every entry, whatever the gradient."""
    free = AdamW(learning_rate=1e-2, weight_decay=0.0, clip=math.inf)
    for mode, share in (("gradient", 1.0), ("matched", 1.0), ("compressed", math.sqrt(K / 8))):
        model, masters = make("right", mode, spec=free)
        advance(model, masters, gradients(1), 1e-2)
        step = masters.masters[Q].double() - start()[Q].double()
        assert float(step.norm()) == pytest.approx(share * 1e-2 * math.sqrt(step.numel()), rel=1e-4), mode


def test_adam_in_other_coordinates_is_another_adam():
    """Compressed training depends on the basis and not on its span alone: Adam scales each coordinate by itself."""
    one, other = (make("right", "compressed", spaces=whole_space("right", turn), rank=8) for turn in (False, True))
    for pair in (one, other):
        advance(*pair, gradients(1), 1e-2)
    assert not torch.allclose(one[1].masters[Q], other[1].masters[Q], atol=1e-3)


@pytest.mark.parametrize(("side", "shape"), [("right", (12, K)), ("left", (K, 8)), ("both", (K, K))])
def test_compressed_moments_have_the_shape_of_the_coefficients(side, shape):
    model, masters = make(side, "compressed", others="frozen")
    advance(model, masters, gradients(1), 1e-2)
    state = masters.state()
    for moment in ("exp_avg", "exp_avg_sq"):
        assert tuple(state[f"{moment}/{Q}"].shape) == shape and state[f"{moment}/{Q}"].dtype == torch.float32
        assert f"{moment}/{EMBED}" not in state and f"{moment}/{NORM}" not in state
    assert tuple(state[f"coefficients/{Q}"].shape) == shape and state[f"coefficients/{Q}"].dtype == torch.float64


@pytest.mark.parametrize("others", ["free", "frozen"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("mode", MODES)
def test_state_restores_bit_for_bit_into_a_new_optimizer(mode, side, others):
    model, masters = make(side, mode, others)
    for t in range(1, 4):
        advance(model, masters, gradients(t), 1e-2)
    state = {name: x.clone() for name, x in masters.state().items()}
    twin, other = make(side, mode, others, spaces=stored_bases(state))
    advance(twin, other, gradients(9), 1.0)  # a state of its own, which the restored one replaces
    other.restore(state, 3)
    for t in range(4, 7):
        assert advance(model, masters, gradients(t), 1e-2) == advance(twin, other, gradients(t), 1e-2)
    assert masters.state().keys() == other.state().keys()
    assert all(torch.equal(x, other.state()[name]) for name, x in masters.state().items())


def test_only_the_named_roles_are_confined():
    limits = Constraint(basis=Random(), rank=K, roles=("q",))
    masters = Masters(Model(), start(), SPEC, constraint=limits, bases=bases("right"))
    assert masters.confined is not None and set(masters.confined.bases) == {Q}
    with pytest.raises(ValueError, match="the model has no matrix of the constraint's roles down, up"):
        limits = Constraint(basis=Random(), rank=K, roles=("down", "up"))
        Masters(Model(), start(), SPEC, constraint=limits, bases=bases("right"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: None, "has no basis for model.layers.0.self_attn.q_proj.weight \\(1 lacking\\)"),
        (lambda x: Subspace(left=torch.eye(12)[:, :K].double()), "q_proj.weight is confined on side 'right': its left"),
        (lambda x: Subspace(), "q_proj.weight is confined on side 'right': its right basis is wrong or lacking"),
        (lambda x: Subspace(right=x.right.float()), r"right basis of .*q_proj.weight is \(8, 3\) float32, and"),
        (lambda x: Subspace(right=x.right[:, :2]), r"right basis of .*q_proj.weight is \(8, 2\) float64, and \(8, 3\)"),
        (lambda x: Subspace(right=x.right[:7]), r"right basis of .*q_proj.weight is \(7, 3\) float64, and \(8, 3\)"),
        (lambda x: Subspace(right=1.001 * x.right), "right basis of .*q_proj.weight is not orthonormal: .* 2.0e-03"),
        (lambda x: Subspace(right=x.right * math.nan), "right basis of .*q_proj.weight is not orthonormal: .* nan"),
    ],
)
def test_a_basis_that_does_not_fit_is_refused_by_matrix(change, message):
    spaces = bases("right")
    spaces[Q] = change(spaces[Q])
    with pytest.raises(ValueError, match=message):
        make("right", spaces={name: space for name, space in spaces.items() if space})
