"""Tasks whose processes are lost: by a Ray that only says so, and (`hungry`) by one whose memory monitor really kills.

The monitor's threshold is two gigabytes above what the machine uses when the script starts, and what eats does so until
it is passed, so it is killed wherever the test runs, and so may be any other: what comes out must be the same.
"""

import itertools
import json
import re
import subprocess
import sys

import pytest

from pipelines.runs.cluster import free_memory
from pipelines.runs.cluster.map_tasks import RayTasks, TaskMap
from pipelines.runs.cluster.worker_failures import RETRIES, WorkerFailed
from pipelines.store.objects import Store

SAID = "1 worker(s) were killed.\nMemory on the node (IP: x) was 22.40GB used / 23.54GB limit (0.95)"


def killed():
    from ray.exceptions import OutOfMemoryError

    return OutOfMemoryError(SAID)


def crashed():
    from ray.exceptions import WorkerCrashedError

    return WorkerCrashedError()


class Told:
    """A Ray that does one task at a time, oldest first, and loses an item as often as `deaths` names reasons."""

    def __init__(self, deaths):
        self.deaths = {item: list(found) for item, found in deaths.items()}
        self.started, self.cancelled = [], []  # (item, memory asked, items that were pending beside it)
        self.waiting = {}

    def remote(self, **options):
        assert options == {"num_cpus": 1, "max_retries": 0}
        return lambda function: Told.Remote(self, function)

    class Remote:
        def __init__(self, ray, function, memory=0):
            self.ray, self.function, self.asked = ray, function, memory

        def options(self, *, memory):
            return Told.Remote(self.ray, self.function, memory)

        def remote(self, item):
            self.ray.started.append((item, self.asked, len(self.ray.waiting)))
            reference = len(self.ray.started)
            self.ray.waiting[reference] = (self.function, item)
            return reference

    def wait(self, references, num_returns, timeout):
        return references[:1], references[1:]

    def get(self, reference):
        function, item = self.waiting.pop(reference)
        if found := self.deaths.get(item):
            raise found.pop(0)
        return function(item)

    def cancel(self, reference):
        self.cancelled.append(reference)


@pytest.fixture
def ray(monkeypatch):
    """ray(deaths): puts a `Told` in Ray's place, of one node with 100 bytes."""
    import ray

    def make(deaths):
        told = Told(deaths)
        for name in ("remote", "wait", "get", "cancel"):
            monkeypatch.setattr(ray, name, getattr(told, name))
        return told

    monkeypatch.setattr(free_memory, "largest_node_memory", lambda: 100.0)
    return make


def run(items, **changed):
    asked = {"done": lambda n: None, "cost": lambda i: 1, "memory": lambda i: 0, "name": lambda i: f"matrix {i}"}
    return TaskMap(RayTasks(lambda i: 10 * i), items, **(asked | {"smaller": lambda i: i} | changed)).run()


def test_what_was_killed_for_memory_is_done_again_alone_after_all_others_with_twice_the_room(ray, caplog):
    told, heard = ray({2: [killed(), killed()], 4: [killed()]}), []
    assert run([1, 2, 3, 4, 5], memory=lambda i: 30, done=heard.append) == [10, 20, 30, 40, 50]
    again = told.started[5:]
    # 30, then twice that, then what the largest node has; nothing else was pending.
    assert again == [(2, 60, 0), (4, 60, 0), (2, 100, 0)]
    assert heard == [1, 2, 3, 4, 5]
    lines = [record.getMessage() for record in caplog.records if record.name == "opd"]
    assert lines[0] == (
        "matrix 2: killed by Ray's memory monitor with 22.40GB used / 23.54GB; it should need 0 MB; "
        "it is done again alone, time 1 of 3"
    )
    assert len(lines) == 3 and all("\n" not in line for line in lines)


def test_what_crashed_otherwise_is_done_again_at_once(ray):
    told = ray({1: [crashed(), crashed()]})
    assert run([1, 2]) == [10, 20]
    assert [item for item, _, _ in told.started] == [1, 2, 1, 1]


@pytest.mark.parametrize("death", [killed, crashed], ids=["killed", "crashed"])
def test_what_is_lost_every_time_ends_in_one_line_and_the_rest_is_cancelled(death, ray):
    told = ray({1: [death()] * 9})
    with pytest.raises(WorkerFailed) as caught:
        run([1, 2, 3], memory=lambda i: 2 * 10**9)
    message = str(caught.value)
    assert re.match(rf"matrix 1 was lost {RETRIES + 1} times \(.+; it should need 2\.0 GB\); use fewer", message)
    assert "\n" not in message
    assert sum(item == 1 for item, _, _ in told.started) == RETRIES + 1
    assert len(told.cancelled) == len(told.waiting)


def test_memory_that_cannot_be_allocated_is_memory_that_was_short(ray):
    told = ray({1: [MemoryError()], 3: [RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 TB")]})
    assert run([1, 2, 3]) == [10, 20, 30]
    assert told.started[3:] == [(1, 0, 0), (3, 0, 0)]


def test_a_tasks_own_error_is_raised_at_once(ray):
    told = ray({2: [ValueError("no such tensor")]})
    with pytest.raises(ValueError, match="no such tensor"):
        run([1, 2, 3])
    assert len(told.started) == 3 and len(told.cancelled) == 1


def test_what_can_be_made_smaller_is(ray):
    told = ray({8: [killed()], 4: [killed()]})
    assert run([8], memory=lambda i: i, smaller=lambda i: i // 2) == [20]
    assert told.started == [(8, 8, 0), (4, 8, 0), (2, 8, 0)]


HUNGRY = r"""
import json, os, sys, time
from pathlib import Path

def used():
    found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in open("/proc/meminfo")}
    return found["MemTotal"], found["MemTotal"] - found["MemAvailable"]

SPARE, MOST = 2.2e9, 6.0e9
total, now = used()
os.environ["RAY_memory_usage_threshold"] = str((now + SPARE) / total)
os.environ["RAY_memory_monitor_refresh_ms"] = "100"

import logging
from pipelines.runs.cluster import free_memory
from pipelines.runs.trajectories import training
from pipelines.runs.cluster.attach import cluster
from pipelines.runs.cluster.map_tasks import map_tasks
from pipelines.runs.geometry.measuring import measure_tasks
from pipelines.runs.trajectories.training import train
from pipelines.store.objects import Store
from tests.pipelines.runs import mini
from tests.pipelines.runs.geometry.test_memory_limits import nowhere

folder = Path(sys.argv[1])
logging.basicConfig(filename=folder / "said", format="%(message)s")
free_memory.read_free_memory = lambda: 1.7e9 / free_memory.SHARE
training.PAUSE = 0.5

def eat():
    held = []
    while used()[1] < now + SPARE + 4e8 and len(held) * 2**25 < MOST:
        held.append(b"x" * 2**25)
        time.sleep(0.01)
    time.sleep(60)

def note(item, what):
    with open(folder / "spans", "a") as file:
        file.write(f"{item} {what}\n")

def measured(item):
    note(item, "begin")
    if item == 1 and not (folder / "ate").exists():
        (folder / "ate").touch()
        eat()
    time.sleep(0.3)
    note(item, "end")
    return item * item

class Hungry(Store):
    def create(self, key, *parts):
        if key.endswith("step-00000003/manifest.json") and not self.exists("mark"):
            self.write("mark", b"")
            eat()
        super().create(key, *parts)

with cluster(2):
    results = map_tasks(measured, [0, 1, 2], serial=False, memory=lambda item: int(1e9), name=lambda i: f"matrix {i}")
    try:
        measure_tasks([nowhere(Store(f"file://{folder}/store"))], serial=False)
    except ValueError as error:
        refused = str(error)
    end = train(Hungry(f"file://{folder}/store"), mini.arm("pre"), 0)
    memory = free_memory.largest_node_memory()
    print(json.dumps({"results": results, "memory": memory, "step": end["step"], "refused": refused}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Ray's memory monitor is there on Linux alone")
def test_a_memory_monitor_that_kills_costs_the_work_of_what_it_killed(tmp_path, grown, contents):
    # What else runs on the machine may take the two gigabytes, and then nothing of ours can live: tried three times.
    folder, done = tmp_path, None
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        done = subprocess.run([sys.executable, "-c", HUNGRY, folder], capture_output=True, text=True, timeout=500)
        if done.returncode == 0:
            break
    assert done and done.returncode == 0, done and done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    line = "gate needs 2.7 GB of memory and a worker can have 1.7 GB; leave out nulls, which is then 1.5 GB, or use a "
    assert told.pop("refused").startswith(line.rstrip())
    assert told == {"results": [0, 1, 4], "memory": 1.7e9, "step": 7}
    # Two CPUs, but memory for one task of a gigabyte: between the begin of one and its end there is no other.
    spans = [tuple(line.split()) for line in (folder / "spans").read_text().splitlines()]
    ended = [(before, now) for before, now in itertools.pairwise(spans) if now[1] == "end"]
    assert sorted(now[0] for _, now in ended) == ["0", "1", "2"]
    assert all(before == (now[0], "begin") for before, now in ended)
    assert spans.count(("1", "begin")) >= 2
    said = (folder / "said").read_text().splitlines()
    assert any(line.startswith("matrix 1: killed by Ray's memory monitor with ") for line in said)
    assert any(line.startswith("mini.pre seed 0: its trainer was lost near step 0 (killed by Ray's") for line in said)
    of = lambda found: {key: data for key, data in found.items() if "mini.pre/" in key}
    (folder / "store/mark").unlink()
    assert of(contents(Store(f"file://{folder}/store"))) == of(contents(grown))
