import time

import pytest

from tests.bench import seconds


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
