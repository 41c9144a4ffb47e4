"""A step's failure is one line; what a launch stops with passes."""

import dagster as dg
import pytest

from assets.failures import explained
from assets.progress import Stopped


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("seed 7 is none of\n  0, 1, 2"), "seed 7 is none of 0, 1, 2"),
        (OSError("disk full"), "disk full"),
        (FloatingPointError("loss is NaN at step 3"), "loss is NaN at step 3"),
        (RuntimeError("\n\nno memory left\nTraceback: deep inside"), "RuntimeError: no memory left"),
        (KeyError("q"), "KeyError: 'q'"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_an_error_becomes_a_failure_of_one_line_with_its_cause(error, told):
    with pytest.raises(dg.Failure) as caught, explained():
        raise error
    assert caught.value.description == told
    assert caught.value.__cause__ is error and caught.value.allow_retries is False


@pytest.mark.parametrize("error", [dg.Failure("as it is"), Stopped(), KeyboardInterrupt()])
def test_a_failure_and_a_stop_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught, explained():
        raise error
    assert caught.value is error
