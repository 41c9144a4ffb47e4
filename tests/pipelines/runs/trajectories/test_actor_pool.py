"""Calls that must be answered, whatever happens to the actors that answer them."""

import os
import re
import signal
import time

import pytest

from pipelines.runs.cluster.worker_failures import WorkerFailed
from pipelines.runs.resources.placement import Spot
from pipelines.runs.trajectories.actor_pool import ActorPool

GONE = 13


@pytest.fixture
def make_pool(workers, tmp_path):
    """make_pool(actors, ...): one of an actor class that counts, and that dies of GONE, `lives` times or always."""
    made = []

    class Worker:
        def begin(self, start):
            self.count = start
            if start == "bad":
                raise ValueError("a bad start")
            if start == "late":
                time.sleep(600)
            return os.getpid()

        def mark(self):
            """How many marks all actors have made, this one included; no two of them ever hear the same number."""
            with open(tmp_path / "deaths", "ab", buffering=0) as file:
                file.write(b"x")  # appended, after which the position is the end of this very write
                return file.tell()

        def add(self, n):
            if n == GONE and self.mark() <= self.count:
                os._exit(1)
            return 10 * n

        def hungry(self, n):
            """As often as `start` says, the memory monitor's error, whose actor Ray has ended by then."""
            from ray.exceptions import OutOfMemoryError

            if self.mark() <= self.count:
                raise OutOfMemoryError("1 worker(s) were killed, 22.40GB used / 23.54GB limit: low on memory")
            return 10 * n

        def pid(self):
            return os.getpid()

        def nap(self, seconds):
            time.sleep(seconds)
            return os.getpid()

        def refuse(self, n):
            raise KeyError(f"no {n}")

    def make(actors=2, start=0, **options):
        seen = []
        made.append(
            ActorPool("worker", Worker, [Spot()] * actors, lambda h: h.begin.remote(start), seen.append, **options)
        )
        return made[-1], seen

    yield make
    for each in made:
        each.close()


def test_calls_are_dealt_over_the_actors_and_come_back_in_order(make_pool):
    both, seen = make_pool()
    assert both.map("add", [(n,) for n in range(7)]) == [10 * n for n in range(7)]
    assert both.map("add", []) == []
    pids = both.call_each("pid")
    assert len(set(pids)) == 2 and sorted(pids) == sorted(seen)
    assert both.call_first("pid") == pids[0]
    assert both.map("pid", [()] * 4) in (pids * 2, pids[::-1] * 2)


def test_an_actor_that_is_killed_is_replaced_and_its_calls_are_repeated(make_pool):
    both, seen = make_pool()
    both.wait()
    calls = [both.submit("nap", 0.5) for _ in range(6)]
    both.collect(calls[0])
    os.kill(seen[0], signal.SIGKILL)
    pids = [both.collect(call) for call in calls[1:]]
    assert both.replaced == 1
    assert len(seen) == 3, "the replacement began as the others had"
    assert set(pids) == {seen[1], seen[2]}
    assert both.map("add", [(n,) for n in range(4)]) == [0, 10, 20, 30]
    assert both.replaced == 1


def test_a_call_survives_as_many_deaths_as_it_may_be_repeated(make_pool):
    both, _ = make_pool(start=2, retries=2)  # dies twice of GONE
    assert both.map("add", [(n,) for n in range(12, 16)]) == [120, 130, 140, 150]
    assert both.replaced == 2
    assert both.map("add", [(GONE,)]) == [130]


def test_a_call_that_kills_every_actor_ends_in_one_line(make_pool):
    both, _ = make_pool(start=10**6, retries=2)
    with pytest.raises(WorkerFailed) as caught:
        both.map("add", [(n,) for n in range(12, 16)])
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    assert re.match(r"a worker died 3 times at the same call, which was repeated 2 times \(.+\); give it more", message)
    assert all(not member.calls for member in both.members), "nothing waits any more"


def test_an_actor_without_memory_leaves_its_calls_to_the_others(make_pool, caplog):
    three, seen = make_pool(actors=3, start=1)
    three.wait()
    assert three.map("hungry", [(n,) for n in range(7)]) == [10 * n for n in range(7)]
    assert (len(three.members), three.replaced, len(seen)) == (2, 0, 3)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "opd"]
    assert line == "a worker was lost (killed by Ray's memory monitor); the 2 left go on without it"
    assert three.map("add", [(n,) for n in range(4)]) == [0, 10, 20, 30]
    assert len(set(three.call_each("pid"))) == 2


def test_an_only_actor_without_memory_is_replaced_as_often_as_any(make_pool, monkeypatch):
    monkeypatch.setattr("pipelines.runs.trajectories.actor_pool.PAUSE", 0.0)
    one, _ = make_pool(actors=1, start=2, retries=2)
    assert one.map("hungry", [(5,)]) == [50]
    assert one.replaced == 2


def test_actors_that_lose_their_memory_one_after_the_other_end_in_one_line(make_pool, monkeypatch):
    monkeypatch.setattr("pipelines.runs.trajectories.actor_pool.PAUSE", 0.0)
    both, _ = make_pool(start=10**6, retries=2)
    with pytest.raises(WorkerFailed, match=r"^a worker died 3 times .*memory monitor.*; give it more memory"):
        both.map("hungry", [(n,) for n in range(4)])
    assert len(both.members) == 1
    assert all(not member.calls for member in both.members), "nothing waits any more"


def test_an_exception_of_a_method_is_raised_once_and_repeats_nothing(make_pool):
    both, _ = make_pool()
    with pytest.raises(KeyError, match="no 5"):
        both.map("refuse", [(5,), (6,)])
    assert both.replaced == 0
    assert both.map("add", [(1,)]) == [10]


def test_a_start_that_fails_is_raised_as_itself(make_pool):
    with pytest.raises(ValueError, match=r"^a bad start$"):
        make_pool(start="bad")[0].wait()
    with pytest.raises(ValueError, match=r"^a bad start$"):
        make_pool(start="bad")[0].map("add", [(1,)])


def test_a_replacement_that_never_starts_is_not_waited_for_for_ever(make_pool):
    one, seen = make_pool(actors=1)
    one.wait()
    one.start, one.begin = 1.0, lambda handle: handle.begin.remote("late")
    os.kill(seen[0], signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(WorkerFailed, match=r"^a worker has not started within 1 s: .*`ray status`"):
        one.call_first("pid")
    assert time.monotonic() - begun < 60
