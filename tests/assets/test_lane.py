"""Why a Dagster run ended, in one line."""

import dagster as dg
import pytest

from assets import lane


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (dg.Failure("disk full\n  at step 3"), "disk full at step 3"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_reason_is_one_line(error, told, instance):
    @dg.op
    def broken():
        raise error

    @dg.job(logger_defs={})
    def work():
        broken()

    result = work.execute_in_process(instance=instance, raise_on_error=False, run_config=lane.SILENT)
    assert lane.reason(result) == told


def test_a_reason_is_the_root_of_a_chain(instance):
    @dg.op
    def broken():
        try:
            raise OSError("disk full")
        except OSError as error:
            raise RuntimeError("wrapped") from error

    @dg.job
    def work():
        broken()

    result = work.execute_in_process(instance=instance, raise_on_error=False, run_config=lane.SILENT)
    assert lane.reason(result) == "OSError: disk full"
