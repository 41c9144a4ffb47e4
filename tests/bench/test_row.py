import pytest

from tests.bench.row import row


@pytest.mark.parametrize(
    ("value", "bounds", "goal", "met"),
    [
        (61.0, {"least": 60}, ">= 60", True),
        (59.0, {"least": 60}, ">= 60", False),
        (6.0, {"most": 6}, "<= 6", True),
        (1.2, {"least": 0.9, "most": 1.1}, ">= 0.9 and <= 1.1", False),
        (None, {"least": 60}, ">= 60", None),
        (3.0, {}, "", None),
        (float("nan"), {"most": 1e-3}, "<= 0.001", False),
    ],
)
def test_a_goal_is_met_missed_or_neither(value, bounds, goal, met):
    found = row(1, "rl", "ratio", value, "x", **bounds)
    assert (found.goal, found.met) == (goal, met)
