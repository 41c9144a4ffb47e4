"""Which steps a table is made for."""

import pytest

from opd_ops.geometry import TABLES
from pipelines.studies.steps import MOST, choose_steps, require_choice, require_known
from pipelines.studies.study import Measurement


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((7,), (7,)),
        ((1, 2, 3, 4), (1, 2, 3, 4)),
        (tuple(range(1, 101)), (1, 5, 22, 100)),
        ((10, 20, 30, 40, 1000), (10, 40, 1000)),
        (tuple(range(100, 2100, 100)), (100, 300, 700, 2000)),
    ],
)
def test_few_steps_lie_evenly_in_their_logarithms(steps, expected):
    assert choose_steps(steps, "few") == expected
    assert len(expected) <= MOST and {steps[0], steps[-1]} <= set(expected)


def test_all_and_named_steps():
    assert choose_steps((1, 2, 3), "all") == (1, 2, 3)
    assert choose_steps((1, 2, 3), "3,1") == (1, 3)
    assert choose_steps((1, 2, 3), "9") == ()


@pytest.mark.parametrize("text", ["", "some", "0", "1,,2", "-1", "1.5", "²", "9" * 30])
def test_what_names_no_steps_is_refused_with_its_value(text):
    with pytest.raises(ValueError, match=r"--nulls-at .* is not all, few or steps from 1 up") as refusal:
        require_choice("--nulls-at", text)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "choice"), [(" 1, 20 ", "1,20"), ("20,1,020", "1,20"), ("3", "3"), (" few ", "few"), ("all", "all")]
)
def test_a_choice_has_one_spelling(text, choice):
    assert require_choice("--nulls-at", text) == choice


def test_a_named_step_that_is_no_snapshot_is_refused():
    with pytest.raises(ValueError, match="--spectra-at names step 3, which is no snapshot; there are: 1, 2"):
        require_known("--spectra-at", "1,3", (1, 2))
    require_known("--spectra-at", "few", (1, 2))


def test_whole_spectra_of_the_update_come_with_locking():
    steps = tuple(range(1, 11))
    asked = Measurement(spectra_at="10").tables_by_step(steps)
    assert {step for step in steps if "spectral_drift" in asked[step]} == {10}
    assert all({"update_spectrum", "hill", "locking"} <= set(asked[step]) for step in steps)
    alone = Measurement(spectra_at="10", tables=tuple(table for table in TABLES if table != "locking"))
    assert {step for step in steps if "hill" in alone.tables_by_step(steps)[step]} == {10}


def test_what_is_left_out_is_said():
    steps = tuple(range(1, 11))
    assert Measurement(nulls_at="all").left_out(steps) == ()
    assert Measurement(spectra_at="1,10").left_out(steps) == (
        "nulls at 4 of 10 steps (1, 2, 5, 10); --nulls-at all takes every step",
        "spectral_drift at 2 of 10 steps (1, 10); --spectra-at all takes every step",
    )
    assert Measurement(nulls_at="2").left_out(steps) == (
        "nulls at 2 of 10 steps (2, 10); --nulls-at all takes every step",
    )
    assert Measurement(tables=("rotation",)).left_out(steps) == ()
