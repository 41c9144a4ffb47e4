import time

import pytest

from tests.bench import load, seconds


@pytest.fixture
def clock(monkeypatch):
    """spend(s): CPU seconds pass."""
    now = [5.0]
    monkeypatch.setattr(seconds.time, "process_time", lambda: now[0])

    def spend(amount):
        now[0] += amount

    return spend


def test_the_median_run_counts(clock):
    costs = iter([3.0, 1.0, 2.0])
    found = seconds.cpu(lambda: clock(next(costs)) or "last", 3)
    assert (found.result, found.seconds, found.runs) == ("last", 2.0, 3)


def test_what_takes_long_is_not_repeated(clock):
    found = seconds.cpu(lambda: clock(seconds.PATIENCE + 1), 3)
    assert found.runs == 1 and found.seconds == seconds.PATIENCE + 1


def test_cpu_seconds_are_not_wall_seconds():
    assert seconds.cpu(lambda: time.sleep(0.05)).seconds < 0.04


def test_what_others_took_is_what_was_busy_less_ours(monkeypatch):
    now, spent = [100.0], [50.0]
    monkeypatch.setattr(load.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(load, "busy", lambda: spent[0])
    measured = load.Load()
    now[0], spent[0] = 110.0, 65.0
    assert measured.others(10.0) == pytest.approx(0.5)
    assert measured.others(20.0) == 0.0


def test_a_system_that_does_not_tell_gives_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(load, "STAT", tmp_path / "none")
    assert load.Load().others(0.0) is None


def test_idle_and_guest_time_are_not_busy_time(monkeypatch, tmp_path):
    monkeypatch.setattr(load, "STAT", tmp_path / "stat")
    monkeypatch.setattr(load.os, "sysconf", lambda name: 100)
    (tmp_path / "stat").write_text("cpu  100 10 20 4000 500 1 2 3 70 7\ncpu0 0 0 0 0 0 0 0 0 0 0\n")
    assert load.busy() == pytest.approx(1.36)
