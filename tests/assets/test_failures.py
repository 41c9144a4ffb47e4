"""A step's failure is one line; what a launch stops with passes."""

import os

import dagster as dg
import pytest

from assets.failures import fail_in_one_line, run_command
from assets.progress import Stopped
from pipelines.runs.cluster.worker_failures import WorkerFailed


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
    with pytest.raises(dg.Failure) as caught, fail_in_one_line():
        raise error
    assert caught.value.description == told
    assert caught.value.__cause__ is error and caught.value.allow_retries is False


@pytest.mark.parametrize("error", [dg.Failure("as it is"), Stopped(), KeyboardInterrupt()])
def test_a_failure_and_a_stop_pass_as_they_are(error):
    with pytest.raises(type(error)) as caught, fail_in_one_line():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "told", "code"),
    [
        (ValueError("TMPDIR is too long;\nset RAY_TMPDIR"), "error: TMPDIR is too long; set RAY_TMPDIR\n", 2),
        (WorkerFailed("Ray did not start"), "error: Ray did not start\n", 1),
    ],
)
def test_a_program_ends_with_one_line_for_what_was_foreseen(error, told, code, capsys):
    assert run_command(lambda: (_ for _ in ()).throw(error)) == code
    assert capsys.readouterr().err == told
    assert run_command(lambda: 3) == 3
    with pytest.raises(KeyError):
        run_command(lambda: {}["q"])


@pytest.mark.parametrize("flush", [True, False])
def test_a_program_whose_output_nobody_reads_any_more_ends_in_silence(flush, monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert run_command(lambda: print("a line", flush=flush) or 1) == 0
    assert capsys.readouterr().err == ""
