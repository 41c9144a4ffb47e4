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


def test_a_row_reads_as_text():
    assert row(1, "rl", "ratio", 61.234, "x", least=60).cells() == ["rl", "ratio", "61.2 x", ">= 60", "met", ""]
    assert row(1, "rl", "ratio", 1e-7, note="n").cells() == ["rl", "ratio", "1e-07", "", "", "n"]
    assert row(2, "peer", "ratio", None, "x", least=5, note="why").cells() == ["peer", "ratio", "-", ">= 5", "", "why"]
