"""Guards and reactions on planted masters: readings, trips, exact noise, determinism, resume, and a real trainer."""

import json

import pytest
import torch

from opd_ops.linalg import gram_factors
from opd_ops.recipe import AdamW, Constraint, Random
from opd_ops.recipe.reaction import Guard, Reaction
from opd_ops.training.reaction import Reacting, gaussian, rail
from opd_ops.training.subspace import Subspace

Q, OUT, UP = (f"model.layers.0.{part}.weight" for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj"))
NORM, EMBED = "model.norm.weight", "model.embed_tokens.weight"
SHAPES = {Q: (24, 40), OUT: (40, 24), UP: (48, 40)}
ANY, NEVER = ((1e-9, 0.0, 1e9), (1e9, 0.0, 1e9)), ((1e-9, 1e8, 1e9), (1e9, 1e8, 1e9))  # inside, outside always


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def start():
    found = {name: 0.1 * noise(i, *shape) for i, (name, shape) in enumerate(SHAPES.items())}
    return found | {NORM: torch.ones(40), EMBED: noise(9, 8, 40)}


def reacting(rails=NEVER, action="isotropic-noise", quantity="stable_rank", every=5, seed=0, weights=None, **changes):
    strength = None if action in ("none", "release") else 0.5
    guard = Guard(quantity=quantity, rails=rails, every=every)
    made = Reaction(**({"guard": guard, "action": action, "strength": strength} | changes))
    masters = start() if weights is None else weights
    return Reacting(made, made.guard.rails, masters, seed), masters


def move(masters, step, size=1e-3):
    """What an optimizer would do: a new random direction each step."""
    for i, w in enumerate(masters.values()):
        w += size * noise(1000 * step + i, *w.shape)


def steps(one, masters, first, last):
    rows = []
    for step in range(first, last + 1):
        one.prepare_step(step)
        move(masters, step)
        rows.append(one.finish_step(step))
    return rows


def equal(ours, theirs):
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (30, 30)])
def test_leading_triplets_are_those_of_an_svd(shape):
    e = noise(5, *shape).double()
    u, values, v = gram_factors(e, 6)
    _, expected, _ = torch.linalg.svd(e)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(u.T @ u, torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(torch.linalg.svdvals(u.T @ e), expected[:6])
    torch.testing.assert_close(torch.linalg.svdvals(e @ v), expected[:6])


def test_rails_are_linear_in_the_logarithm_of_the_norm():
    points = ((0.01, 1.0, 2.0), (0.1, 2.0, 4.0), (1.0, 2.0, 2.0))
    assert rail(points, 0.01) == (1.0, 2.0) and rail(points, 0.1) == (2.0, 4.0) and rail(points, 1.0) == (2.0, 2.0)
    assert rail(points, 10**-1.5) == pytest.approx((1.5, 3.0))
    assert rail(points, 0.0099) is None and rail(points, 1.01) is None
    assert rail(((0.1, 1.0, 2.0),), 0.1) == (1.0, 2.0)


def test_readings_are_means_over_projections_against_the_beginning():
    one, masters = reacting(ANY)
    steps(one, masters, 1, 10)
    begun = start()
    expected = []
    for name in SHAPES:
        values = torch.linalg.svdvals(masters[name].double() - begun[name].double())
        expected.append(float(values.square().sum() / values[0] ** 2))
    assert one.ranks[10] == pytest.approx(sum(expected) / 3)
    assert sorted(one.ranks) == [5, 10]


def test_two_readings_in_a_row_outside_trip_it_once():
    one, masters = reacting(action="none")
    rows = steps(one, masters, 1, 20)
    assert [row["tripped"] for row in rows] == [None] * 9 + [10] * 11
    assert all(row["noise"] is None for row in rows)


def test_a_single_reading_outside_does_not():
    one, masters = reacting(action="none", every=1)
    one.rails = NEVER
    steps(one, masters, 1, 1)
    one.rails = ANY
    steps(one, masters, 2, 2)
    one.rails = NEVER
    steps(one, masters, 3, 3)
    assert one.tripped is None and one.outside
    steps(one, masters, 4, 4)
    assert one.tripped == 4


@pytest.mark.parametrize("rails", [((1e-9, 1e8, 1e9), (1e-8, 1e8, 1e9)), ((1e3, 1e8, 1e9),)])
def test_norms_outside_the_rails_have_no_verdict(rails):
    one, masters = reacting(rails)
    steps(one, masters, 1, 30)
    assert one.tripped is None


def test_an_update_of_nothing_has_no_verdict():
    one, _ = reacting()
    assert [one.finish_step(step)["tripped"] for step in range(1, 31)] == [None] * 30


def test_comparisons_are_with_the_reading_at_half_the_steps():
    direction = {name: noise(77 + i, *shape) for i, (name, shape) in enumerate(SHAPES.items())}
    for quantity in ("stable_rank_ratio", "similarity"):
        one, masters = reacting(ANY, quantity=quantity)
        for step in range(1, 21):
            for name in SHAPES:
                masters[name] += 1e-3 * direction[name]
            one.finish_step(step)
        # Straight on: the same directions and ranks, but for rounding to fp32.
        assert one._value(20) == pytest.approx(1.0, abs=1e-3)
        for step in range(21, 41):
            move(masters, step, 1e-2)
            for name, (out, given) in SHAPES.items():
                masters[name] += 1e-2 * torch.ones(out, given)  # one direction more, which lowers the stable rank
            one.finish_step(step)
        assert one._value(40) < 0.9
        assert min(one.ranks) == 10, "readings of less than a quarter of the steps are not kept"
        assert set(one.inputs) == (set(one.ranks) if quantity == "similarity" else set())


def test_isotropic_noise_has_its_share_of_the_steps_norm_and_leaves_other_weights_alone():
    one, masters = reacting(strength=0.25, every=1)
    steps(one, masters, 1, 2)
    before = {name: w.clone() for name, w in masters.items()}
    one.prepare_step(3)
    move(masters, 3)
    clean = {name: w.clone() for name, w in masters.items()}
    row = one.finish_step(3)
    for name in SHAPES:
        step = float((clean[name].double() - before[name].double()).norm())
        added = float((masters[name].double() - clean[name].double()).norm())
        assert added / step == pytest.approx(0.25, rel=1e-5)  # weights of 0.1 round by 4e-9, the noise is 2.5e-4
    assert torch.equal(masters[NORM], clean[NORM]) and torch.equal(masters[EMBED], clean[EMBED])
    assert row["noise"] == pytest.approx(0.25, rel=1e-5)


def test_noise_can_be_kept_to_some_roles():
    one, masters = reacting(roles=("q",), every=1)
    steps(one, masters, 1, 2)
    one.prepare_step(3)
    move(masters, 3)
    clean = {name: w.clone() for name, w in masters.items()}
    one.finish_step(3)
    assert [name for name in SHAPES if not torch.equal(masters[name], clean[name])] == [Q]


def test_off_channel_noise_is_orthogonal_to_the_updates_directions_at_the_trip():
    one, masters = reacting(action="off-channel-noise", strength=0.5, rank=4, every=1)
    steps(one, masters, 1, 2)
    frozen = {name: gram_factors(one.update(name), 4) for name in SHAPES}
    for step in (3, 4):  # the directions stay those of the trip
        before = {name: w.clone() for name, w in masters.items()}
        one.prepare_step(step)
        move(masters, step)
        clean = {name: w.clone() for name, w in masters.items()}
        one.finish_step(step)
        for name, (u, _, v) in frozen.items():
            added = masters[name].double() - clean[name].double()
            moved = float((clean[name].double() - before[name].double()).norm())
            assert float(added.norm()) / moved == pytest.approx(0.5, rel=1e-5)
            inside = float((u.T @ added).norm()) + float((added @ v).norm())
            assert inside < 1e-5 * float(added.norm())  # rounding of the sum to fp32


def test_a_draw_depends_on_seed_step_and_matrix_alone():
    drawn = gaussian(3, 7, Q, SHAPES[Q])
    assert torch.equal(drawn, gaussian(3, 7, Q, SHAPES[Q]))
    for other in (gaussian(4, 7, Q, SHAPES[Q]), gaussian(3, 8, Q, SHAPES[Q]), gaussian(3, 7, OUT, SHAPES[Q])):
        assert abs(float((drawn * other).sum())) < 0.15 * 960  # 960 independent entries: 4.6 deviations
    assert float(drawn.square().mean()) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("action", ["none", "isotropic-noise", "off-channel-noise", "release"])
def test_without_a_trip_nothing_is_touched(action):
    one, masters = reacting(ANY, action=action, rank=4) if action == "off-channel-noise" else reacting(ANY, action)
    steps(one, masters, 1, 20)
    plain = start()
    for step in range(1, 21):
        move(plain, step)
    assert equal(masters, plain) and not one.lifts_constraint(21)


@pytest.mark.parametrize("action", ["none", "release"])
def test_actions_without_noise_touch_nothing_after_a_trip_either(action):
    one, masters = reacting(action=action)
    steps(one, masters, 1, 20)
    plain = start()
    for step in range(1, 21):
        move(plain, step)
    assert one.tripped == 10 and equal(masters, plain)


def test_a_release_lifts_the_constraint_after_the_trip_for_as_long_as_it_lasts():
    one, masters = reacting(action="release", steps=3)
    assert not one.lifts_constraint(1)
    steps(one, masters, 1, 12)
    assert [step for step in range(1, 21) if one.lifts_constraint(step)] == [11, 12, 13]
    noisy, masters = reacting()
    steps(noisy, masters, 1, 12)
    assert not any(noisy.lifts_constraint(step) for step in range(1, 21))


def test_noise_lasts_as_many_steps_as_asked_for():
    one, masters = reacting(steps=2, every=1)
    rows = steps(one, masters, 1, 6)
    assert [row["noise"] is not None for row in rows] == [False, False, True, True, False, False]


@pytest.mark.parametrize("quantity", ["stable_rank", "stable_rank_ratio", "similarity"])
@pytest.mark.parametrize("action", ["isotropic-noise", "off-channel-noise"])
@pytest.mark.parametrize("stop", [3, 7, 12, 25])
def test_a_run_stopped_at_any_step_ends_with_the_same_bits(quantity, action, stop):
    whole, masters = reacting(action=action, quantity=quantity, rank=4, every=3)
    rows = steps(whole, masters, 1, 40)
    assert whole.tripped is not None
    first, part = reacting(action=action, quantity=quantity, rank=4, every=3)
    steps(first, part, 1, stop)
    tensors, facts = first.state()
    assert all(name.startswith("reaction/") for name in tensors)
    second, _ = reacting(action=action, quantity=quantity, rank=4, every=3)
    for name, w in second.watched.items():
        w.copy_(part[name])
    resumed = dict(part) | second.watched
    second.restore(tensors | {"master/other": torch.zeros(1)}, json.loads(json.dumps(facts)))
    assert steps(second, resumed, stop + 1, 40) == rows[stop:]
    assert equal(resumed, masters)


def test_seeds_differ():
    ends = []
    for seed in (0, 1):
        one, masters = reacting(seed=seed)
        steps(one, masters, 1, 12)
        ends.append(masters[Q])
    assert not torch.equal(*ends)


def test_what_cannot_be_watched_or_disturbed_is_refused():
    with pytest.raises(ValueError, match="nothing is off its channel of rank 24"):
        reacting(action="off-channel-noise", rank=24)
    with pytest.raises(ValueError, match="there are none"):
        reacting(weights={NORM: torch.ones(4)})


def trained(trainer, rails, action="isotropic-noise", react=True):
    guard = Guard(quantity="stable_rank", rails=rails, every=1)
    reaction = Reaction(guard=guard, action=action, strength=1.0 if action == "isotropic-noise" else None)
    made = trainer("sft", reaction=reaction, given={"rails": rails}) if react else trainer("sft")
    rows = [made.advance().row for _ in range(5)]
    return [row["loss"] for row in rows], {name: w.clone() for name, w in made.weights().items()}, rows


def test_a_released_constraint_confines_no_further_gradient(trainer, weights):
    """A basis of no direction but one: nothing but the trip lets the other directions in."""
    name = next(key for key in weights(0)[1] if key.endswith("q_proj.weight"))
    guard = Guard(quantity="stable_rank", rails=NEVER, every=1)
    constraint = Constraint(basis=Random(), rank=1, roles=("q",))
    spaces = {
        key: Subspace(right=torch.eye(w.shape[1], dtype=torch.float64)[:, :1])
        for key, w in weights(0)[1].items()
        if key.endswith("q_proj.weight")
    }
    made = trainer(
        "sft",
        optimizer=AdamW(learning_rate=1e-3),
        constraint=constraint,
        reaction=Reaction(guard=guard, action="release"),
        given={"rails": NEVER, "bases": spaces},
    )
    rows, moved = [], []
    for _ in range(4):
        before = made.weights()[name].clone()
        rows.append(made.advance().row)
        moved.append((made.weights()[name] - before)[:, 1:].abs().max())
    assert [row["tripped"] for row in rows] == [None, 2, 2, 2]
    assert ["removed" in row for row in rows] == [True, True, False, False]
    assert moved[0] == moved[1] == 0 and moved[2] > 0
    assert rows[1]["leaked"] == 0 and rows[3]["leaked"] > 0, "what the release lets out is reported"


def test_in_a_trainer_a_sham_changes_no_bit_and_noise_changes_what_follows(trainer):
    plain, free, _ = trained(trainer, NEVER, react=False)
    for rails, action in ((ANY, "isotropic-noise"), (NEVER, "none")):
        losses, weights, _ = trained(trainer, rails, action)
        assert losses == plain and equal(weights, free)
    losses, weights, rows = trained(trainer, NEVER)
    assert [row["tripped"] for row in rows] == [None, 2, 2, 2, 2]
    assert losses[:3] == plain[:3] and losses[3] != plain[3], "the noise of step 3 is served to step 4"
    assert all(row["noise"] is None for row in rows[:2])
    assert [row["noise"] for row in rows[2:]] == pytest.approx([1.0] * 3, rel=1e-3)
    assert trained(trainer, NEVER)[0] == losses and equal(trained(trainer, NEVER)[1], weights)
