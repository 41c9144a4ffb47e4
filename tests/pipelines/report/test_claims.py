"""How an interval becomes a verdict."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.claims import BY_TEXT, Kind

CLAIM = BY_TEXT["unchanged weights, bf16: SFT < OPD"]
ENDS = st.floats(-10, 10)


@pytest.mark.parametrize(
    ("kind", "low", "high", "holds"),
    [
        ("less", -2, -1, True),
        ("less", 1, 2, False),
        ("less", -1, 1, None),
        ("less", -1, 0, None),
        ("greater", 1, 2, True),
        ("greater", -2, -1, False),
        ("greater", -1, 1, None),
        ("at_most", -1, 0, True),
        ("at_most", 0.1, 1, False),
        ("at_most", -1, 1, None),
        ("near", -1.9, 1.9, True),
        ("near", -2.1, 1.9, None),
        ("near", 2.1, 3, False),
        ("near", -3, -2.1, False),
        ("differs", 0.1, 1, True),
        ("differs", -1, -0.1, True),
        ("differs", -1, 1, None),
        ("differs", 0, 0, None),
    ],
)
def test_the_side_of_the_interval_decides(kind: Kind, low, high, holds):
    # A band of 20 % of 10 is 2.
    assert replace(CLAIM, kind=kind, band=0.2).judge(low, high, 10) is holds


@given(ENDS, ENDS)
def test_greater_mirrors_less(one, other):
    low, high = sorted((one, other))
    assert replace(CLAIM, kind="greater").judge(low, high, 1) is replace(CLAIM, kind="less").judge(-high, -low, 1)


@given(ENDS, ENDS, st.floats(0, 5), st.sampled_from(["less", "greater", "at_most", "near", "differs"]))
def test_a_wider_interval_never_turns_a_verdict_around(one, other, more, kind):
    low, high = sorted((one, other))
    claim = replace(CLAIM, kind=kind, band=0.2)
    narrow, wide = claim.judge(low, high, 10), claim.judge(low - more, high + more, 10)
    assert wide is None or wide is narrow
