"""Snapshots beside training: in order, copied when they are taken, bounded, and none skipped where one fails."""

import threading
import time

import pytest
import torch

from pipelines.store.writer import QUEUE, Writer


class Target:
    """Commits into a list; blocks while `closed`, fails while `broken`."""

    def __init__(self):
        self.found, self.open, self.broken, self.began = [], threading.Event(), False, threading.Semaphore(0)
        self.open.set()

    def __call__(self, step, tensors, parent):
        self.began.release()
        assert self.open.wait(10)
        if self.broken:
            raise OSError(28, "No space left on device")
        self.found.append((step, parent, float(tensors["w"][0])))


def put(writer, step, value=None):
    writer.put(step, {"w": torch.full((3,), float(step if value is None else value))}, step - 1 if step else None)


@pytest.fixture
def target():
    return Target()


def test_snapshots_are_committed_in_order(target):
    writer = Writer(target)
    for step in range(7):
        put(writer, step)
    writer.flush()
    assert target.found == [(step, step - 1 if step else None, float(step)) for step in range(7)]


def test_what_is_taken_is_a_copy(target):
    target.open.clear()
    writer, weights = Writer(target), torch.ones(3)
    writer.put(0, {"w": weights}, None)
    weights.zero_()
    target.open.set()
    writer.flush()
    assert target.found == [(0, None, 1.0)]


def test_training_goes_on_while_a_snapshot_is_written_and_waits_past_the_queue(target):
    target.open.clear()
    writer = Writer(target)
    for step in range(QUEUE):
        put(writer, step)  # would never return if it waited
    blocked = threading.Thread(target=put, args=(writer, QUEUE))
    blocked.start()
    assert target.began.acquire(timeout=10)
    blocked.join(0.2)
    assert blocked.is_alive() and target.found == []
    target.open.set()
    blocked.join(10)
    writer.flush()
    assert [step for step, _, _ in target.found] == list(range(QUEUE + 1))


def test_a_flush_returns_when_everything_is_committed(target):
    target.open.clear()
    writer = Writer(target)
    put(writer, 0)
    threading.Timer(0.1, target.open.set).start()
    writer.flush()
    assert len(target.found) == 1
    writer.flush()


def test_what_failed_is_told_kept_and_tried_again_before_what_came_later(target):
    writer, target.broken = Writer(target), True
    put(writer, 0)
    with pytest.raises(OSError, match="No space left"):
        writer.flush()
    with pytest.raises(OSError, match="No space left"):
        writer.flush()
    assert target.found == []
    target.broken = False
    put(writer, 1)
    writer.flush()
    assert [step for step, _, _ in target.found] == [0, 1]


def test_a_failure_is_told_by_the_next_snapshot(target):
    writer, target.broken = Writer(target), True
    put(writer, 0)
    deadline = time.monotonic() + 10
    with pytest.raises(OSError, match="No space left"):
        for step in range(1, 1000):
            put(writer, step)
            assert time.monotonic() < deadline
            time.sleep(0.001)


def test_the_cpu_seconds_are_those_of_the_thread(target):
    def busy(step, tensors, parent):
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    writer = Writer(busy)
    assert writer.cpu == 0.0
    put(writer, 0)
    writer.flush()
    assert 0.05 <= writer.cpu < 0.5
    before = writer.cpu
    sum(range(10**6))
    assert writer.cpu - before < 0.01
