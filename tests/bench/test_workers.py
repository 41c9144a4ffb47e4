"""The bench's measuring processes: all of them start, and one that dies ends the wait for its result."""

import signal
from concurrent.futures.process import BrokenProcessPool

import pytest

from tests.bench.workers import growth, open_workers


def test_all_workers_start_and_one_that_is_killed_ends_the_wait():
    with pytest.raises(BrokenProcessPool), open_workers(2) as pool:
        assert len(pool._processes) == 2
        assert pool.submit(growth).result() >= 0
        pool.submit(signal.raise_signal, signal.SIGKILL).result(timeout=60)
