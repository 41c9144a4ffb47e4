"""Why a Dagster run ended, in one line."""

import sqlite3

import dagster as dg
import pytest
from sqlalchemy.exc import OperationalError

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


class PanicException(BaseException):
    """As Polars' own, which is no Exception."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OperationalError("BEGIN", None, sqlite3.OperationalError("database is locked")),
            "cannot be used (database is l",
        ),
        (MemoryError(), "memory is short here (MemoryError; "),
        (ValueError("RAY_ADDRESS x:1 cannot be reached;\nunset it"), "RAY_ADDRESS x:1 cannot be reached; unset it"),
        (PanicException("called `Result::unwrap()`"), "see `opd verify`"),
    ],
)
def test_whatever_a_lane_meets_outside_of_a_step_is_its_outcome_in_one_line(error, words, monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr(lane, "_instance", lambda: (_ for _ in ()).throw(error))
    outcome = lane.execute("runs", "p", ())
    assert outcome.failure is not None and words in outcome.failure and "\n" not in outcome.failure
    assert outcome.problems == [] and not (tmp_path / "unforeseen.log").exists()


def test_of_what_nobody_foresaw_the_traceback_is_kept_and_named(monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr(lane, "_instance", lambda: {}["a\nb"])
    log = tmp_path / "unforeseen.log"
    outcome = lane.execute("runs", "p", ())
    assert outcome.failure == (f"KeyError: 'a\\nb'; its traceback is in {log}, and the same command goes on from here")
    assert "Traceback" in log.read_text() and "KeyError" in log.read_text()


def test_a_lane_that_could_not_join_ray_says_so_of_every_item(monkeypatch):
    monkeypatch.setattr(lane, "_ray_errors", [ValueError("RAY_ADDRESS x:1 cannot be joined; unset it")])
    assert lane.execute("runs", "p", ()).failure == "RAY_ADDRESS x:1 cannot be joined; unset it"
