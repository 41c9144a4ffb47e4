"""What a step says while it runs: a line for each quarter, one every half minute, and how long it will take."""

from types import SimpleNamespace

import pytest

from assets import progress
from assets.progress import Stopped, Tracker
from pipelines.runs.trajectories.training import Progress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def told():
    """told(events): lines of a run of 100 steps, of which `events` are (second, step)."""

    def run(*events, start=0.0):
        lines, clock = [], Clock()
        context = SimpleNamespace(log=SimpleNamespace(info=lines.append))
        tracker = Tracker(context, "tiny.opd", 0, clock)  # type: ignore[arg-type]
        for second, step in events:
            clock.now = second
            tracker.trained(Progress(step, 100, step == 100, second))
        return lines

    return run


def test_a_quick_run_says_its_quarters_with_what_is_left(told):
    assert told((0, 0), (10, 20), (15, 30), (20, 40), (25, 50), (40, 80), (50, 100)) == [
        "tiny.opd seed 0 train: step 0 of 100 (0 %)",
        "tiny.opd seed 0 train: step 30 of 100 (30 %), 35 s left",
        "tiny.opd seed 0 train: step 50 of 100 (50 %), 25 s left",
        "tiny.opd seed 0 train: step 80 of 100 (80 %), 10 s left",
        "tiny.opd seed 0 train: step 100 of 100 (100 %)",
    ]


def test_a_slow_run_says_where_it_is_every_half_minute(told):
    lines = told(*((second, second // 60) for second in range(0, 301, 5)))
    assert len(lines) == 1 + 300 // 30
    assert lines[-1] == "tiny.opd seed 0 train: step 5 of 100 (5 %), 95 min 00 s left"


def test_what_an_earlier_call_did_does_not_count_as_pace(told):
    assert told((0, 80), (10, 90), (20, 100))[:2] == [
        "tiny.opd seed 0 train: step 80 of 100 (80 %)",
        "tiny.opd seed 0 train: step 100 of 100 (100 %)",
    ]
    assert told((0, 60), (10, 80))[1] == "tiny.opd seed 0 train: step 80 of 100 (80 %), 10 s left"


def test_a_listener_hears_every_event_and_may_stop_the_run(told, monkeypatch):
    heard = []

    def listen(recipe, seed, phase, share, seconds):
        heard.append((recipe, seed, phase, share, seconds))
        if share > 0.15:
            raise Stopped

    monkeypatch.setattr(progress, "listeners", [listen])
    with pytest.raises(Stopped):
        told((1, 10), (2, 15), (3, 20), (4, 30))
    assert heard == [("tiny.opd", 0, "train", share, second) for second, share in ((1, 0.1), (2, 0.15), (3, 0.2))]
