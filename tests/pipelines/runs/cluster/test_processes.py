"""Tasks in processes of this machine without Ray: the same results, and what becomes of those whose process dies."""

import functools
import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import psutil
import pytest

from pipelines.runs.cluster import free_memory, processes
from pipelines.runs.cluster.map_tasks import map_tasks, task_memory_limit
from pipelines.runs.cluster.worker_failures import RETRIES, WorkerFailed


class Odd(Exception):
    pass


def later_the_smaller(item):
    time.sleep(0.05 * (3 - item))
    return 10 * item


def surroundings(item):
    return os.getpid(), os.environ["OMP_NUM_THREADS"]


def even_is_wrong(item):
    if item % 2 == 0:
        raise Odd(f"item {item} is even")
    return item


def dies(folder, times, signal_or_code, item):
    """Item 1 ends its process as many times."""
    (folder / f"{item} begins {time.monotonic()}").touch()
    if item == 1 and sum(path.name.startswith("1 ") for path in folder.iterdir()) <= times:
        os.kill(os.getpid(), signal.SIGKILL) if signal_or_code == "killed" else os._exit(3)
    time.sleep(0.2)
    (folder / f"{item} ends {time.monotonic()}").touch()
    return item * item


def timed(item):
    begun = time.monotonic()
    time.sleep(0.3)
    return begun, time.monotonic()


def endless(folder, deaf, item):
    (folder / f"{os.getpid()} began").touch()
    if deaf:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            time.sleep(0.05)
    finally:
        time.sleep(0.2)
        (folder / f"{os.getpid()} kept").touch()


def dies_once(item):
    raise MemoryError


def number_of(folder, end):
    return sum(path.name.endswith(end) for path in folder.iterdir())


@pytest.fixture
def pair():
    """Two processes."""
    with processes.process_pool(2):
        yield


def test_results_come_in_the_order_of_the_items_and_are_counted(pair):
    heard = []
    items = [0, 1, 2, 3, 3]
    assert map_tasks(later_the_smaller, items, serial=False, done=heard.append) == [0, 10, 20, 30, 30]
    assert heard == sorted(heard) and heard[-1] == 5
    assert map_tasks(later_the_smaller, [], serial=False) == []


def test_work_is_done_in_two_other_processes_of_one_thread_without_ray(pair):
    found = map_tasks(surroundings, range(8), serial=False)
    assert len({pid for pid, _ in found} - {os.getpid()}) == 2 and {threads for _, threads in found} == {"1"}
    with processes.process_pool(5):
        assert {pid for pid, _ in map_tasks(surroundings, range(8), serial=False)} == {pid for pid, _ in found}


def test_the_error_of_a_task_arrives_as_itself_and_the_processes_go_on(pair):
    with pytest.raises(Odd, match=r"^item 2 is even$"):
        map_tasks(even_is_wrong, [1, 2, 3], serial=False)
    assert map_tasks(even_is_wrong, [1, 3], serial=False) == [1, 3]


@pytest.mark.parametrize("how", ["killed", "code"])
def test_a_task_whose_process_dies_is_done_again(how, tmp_path, caplog):
    with processes.process_pool(2):
        work = functools.partial(dies, tmp_path, 2, how)
        assert map_tasks(work, [0, 1, 2, 3], serial=False, name=lambda item: f"matrix {item}") == [0, 1, 4, 9]
    said = [record.getMessage() for record in caplog.records if record.name == "opd"]
    if how == "killed":
        why = "matrix 1: killed, as the system does where memory is short; it is done again alone, time"
        spans = sorted((float(path.name.split()[2]), path.name.split()[:2]) for path in tmp_path.iterdir())
        assert [what for _, what in spans][-3:] == [["1", "begins"], ["1", "begins"], ["1", "ends"]]
    else:
        why = "matrix 1: its worker is gone (ended with exit code 3); it is done again, time"
    assert said == [f"{why} {time} of {RETRIES}" for time in (1, 2)]


def test_the_exit_code_is_read_after_the_executor_has_collected_it(monkeypatch):
    """Two threads that wait for one process: the second gets ECHILD, which Python reports as no exit code."""
    waitpid = os.waitpid

    def slow_waitpid(pid, options):
        result = waitpid(pid, options)
        time.sleep(0.1 if result[0] else 0)
        return result

    monkeypatch.setattr(os, "waitpid", slow_waitpid)
    for _ in range(4):
        worker = processes.Worker(())
        call = processes.Call(os._exit, 3, memory=0)
        worker.submit(call)
        with pytest.raises(BrokenProcessPool):
            call.future.result()
        assert str(worker.describe_death()) == "ended with exit code 3"


def test_a_task_whose_process_dies_every_time_ends_in_one_line(tmp_path):
    with processes.process_pool(2), pytest.raises(WorkerFailed) as caught:
        map_tasks(functools.partial(dies, tmp_path, 9, "killed"), [0, 1], serial=False, memory=lambda item: 2 * 10**9)
    assert str(caught.value).startswith("1 was lost 4 times (killed, as the system does where memory is short; it sho")
    assert "\n" not in str(caught.value)


def test_memory_that_cannot_be_allocated_is_memory_that_was_short(pair):
    with pytest.raises(WorkerFailed, match="lost 4 times"):
        map_tasks(dies_once, [1], serial=False)


def test_no_more_is_begun_at_once_than_memory_allows(monkeypatch):
    monkeypatch.setattr(free_memory, "read_free_memory", lambda: 100.0 / free_memory.SHARE)
    with processes.process_pool(3):
        assert task_memory_limit(serial=False) == pytest.approx(100.0)
        alone = map_tasks(timed, range(3), serial=False, memory=lambda item: 60)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(sorted(alone)))
        # The second waits for the first; the third fits beside it.
        first, second, third = map_tasks(timed, [60, 60, 30], serial=False, memory=lambda item: item)
        assert third[0] < first[1] <= second[0]
        larger = map_tasks(timed, [200], serial=False, memory=lambda item: item)
        assert len(larger) == 1, "what needs more than there is was refused before, or is tried"


@pytest.mark.parametrize("deaf", [False, True], ids=["interrupted", "killed"])
def test_a_listener_that_raises_stops_the_work_which_keeps_what_it_can(deaf, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 1.0 if deaf else 30.0)

    def stop(count):
        if number_of(tmp_path, "began") == 2:
            raise Odd

    with processes.process_pool(2):
        with pytest.raises(Odd):
            map_tasks(functools.partial(endless, tmp_path, deaf), range(4), serial=False, done=stop)
        assert number_of(tmp_path, "kept") == (0 if deaf else 2)
        assert map_tasks(even_is_wrong, [1, 3], serial=False) == [1, 3], "the processes are free again, or new ones"


COMMAND = """
import functools, sys
from pathlib import Path
from pipelines.runs.cluster import processes
from pipelines.runs.cluster.map_tasks import map_tasks
from tests.pipelines.runs.cluster.test_processes import endless

if __name__ == "__main__":
    try:
        with processes.process_pool(2):
            map_tasks(functools.partial(endless, Path(sys.argv[1]), False), range(3), serial=False)
    except KeyboardInterrupt:
        sys.exit("interrupted")
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["of a terminal", "killed"])
def test_an_end_of_the_command_ends_its_processes(how, tmp_path):
    """SIGINT goes to all of the terminal's foreground group, and SIGKILL leaves the parent no time to end anything."""
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    folder = tmp_path / "told"
    folder.mkdir()
    command = [sys.executable, str(script), str(folder)]
    running = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    children = []
    try:
        until = time.monotonic() + 120
        while number_of(folder, "began") < 2 and time.monotonic() < until:
            time.sleep(0.05)
        children = psutil.Process(running.pid).children(recursive=True)
        assert len(children) >= 2
        os.killpg(running.pid, how) if how == signal.SIGINT else running.kill()
        _, err = running.communicate(timeout=60)
        if how == signal.SIGINT:
            assert (running.returncode, err) == (1, "interrupted\n")
            assert number_of(folder, "kept") == 2
        assert psutil.wait_procs(children, timeout=30)[1] == []
    finally:
        for process in children:
            if process.is_running():
                process.kill()
        running.kill()


@pytest.mark.parametrize(
    ("seconds", "address", "expected"),
    [(10.0, None, True), (10.0, "local", True), (10.0, "10.0.0.1:6379", False), (1e4, None, False)],
)
def test_short_work_of_this_machine_is_for_processes(seconds, address, expected, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert processes.suit_work(seconds) == expected


def test_work_is_for_a_ray_that_this_process_has_joined(workers, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert not processes.suit_work(1.0)
