"""Guards and reactions as parts of a recipe: what they say, and what is refused."""

import pytest

from opd_ops.recipe.later import plain
from opd_ops.recipe.reaction import Guard, Reaction, earlier, require_rails

RAILS = ((0.001, 2.0, 4.0), (0.01, 3.0, 5.0))
GUARD = Guard(quantity="stable_rank", rails=RAILS)


@pytest.mark.parametrize(
    ("step", "expected"), [(1, None), (2, 1), (4, 2), (5, 2), (8, 4), (10, 5), (16, 8), (64, 32), (65, 32), (100, 50)]
)
def test_the_earlier_snapshot_is_the_last_of_at_most_half_the_steps(step, expected):
    steps = [1, 2, 4, 5, 8, 10, 16, 32, 50, 64, 65, 100]
    assert earlier(steps, step) == expected


def test_a_snapshot_of_less_than_a_quarter_of_the_steps_is_no_comparison():
    assert earlier([1, 100], 100) is None
    assert earlier([25, 100], 100) == 25 and earlier([24, 100], 100) is None
    assert earlier([], 8) is None


def test_equal_reactions_are_one_and_go_into_an_identity_as_plain_types():
    made = Reaction(guard=GUARD, action="isotropic-noise", strength=0.5)
    assert made == Reaction(guard=Guard(quantity="stable_rank", rails=RAILS), action="isotropic-noise", strength=0.5)
    shown = plain(made)
    assert shown["guard"] == {
        "quantity": "stable_rank",
        "reference": None,
        "seeds": [0, 1, 2],
        "rails": [[0.001, 2.0, 4.0], [0.01, 3.0, 5.0]],
        "every": 5,
    }
    assert (shown["action"], shown["strength"], shown["rank"], shown["steps"]) == ("isotropic-noise", 0.5, 16, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantity": "norm"}, "guard.quantity 'norm'"),
        ({"rails": None}, "one band"),
        ({"reference": "tiny.opd"}, "one band"),
        ({"every": 0}, "guard.every is at least 1"),
        ({"rails": ((0.01, 3.0, 5.0), (0.001, 2.0, 4.0))}, "ascending norms"),
        ({"rails": ((0.0, 3.0, 5.0),)}, "ascending norms above 0"),
        ({"rails": ((0.01, 5.0, 3.0),)}, "low above high at relative norm 0.01"),
    ],
)
def test_a_guard_that_could_not_judge_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Guard(**({"quantity": "stable_rank", "rails": RAILS} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": "louder"}, "reaction.action 'louder'"),
        ({"strength": None}, "strength belongs to isotropic-noise and off-channel-noise"),
        ({"action": "none"}, "strength belongs to"),
        ({"action": "release"}, "strength belongs to"),
        ({"strength": 0.0}, "share above 0"),
        ({"strength": float("inf")}, "share above 0"),
        ({"rank": 0}, "reaction.rank"),
        ({"steps": 0}, "reaction.steps"),
        ({"roles": ("embed",)}, "got embed"),
        ({"roles": ()}, "got none"),
    ],
)
def test_a_reaction_that_says_two_things_or_nothing_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Reaction(**({"guard": GUARD, "action": "isotropic-noise", "strength": 1.0} | changes))


def test_rails_need_a_point():
    with pytest.raises(ValueError, match="got norms"):
        require_rails(())
