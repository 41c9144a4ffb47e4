import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from pipelines.runs.cluster import address, attach, free_memory
from pipelines.runs.cluster.attach import actor, cluster, unwrap, wait_for
from pipelines.runs.cluster.map_tasks import map_tasks
from tests.pipelines.runs.conftest import gone

both = pytest.mark.parametrize("serial", [True, False])


JOINING = """
from pipelines.runs.cluster.attach import cluster
try:
    with cluster():
        import ray
        print("joined", ray.get(ray.remote(lambda: 7).remote()), flush=True)
except ValueError as error:
    print(error, flush=True)
"""
LISTENING = (
    f"JOINING = {JOINING!r}"
    + """
import os, psutil, subprocess, sys
from pathlib import Path
from pipelines.runs.cluster.attach import cluster
with cluster(1):
    import ray
    ray.get(ray.remote(lambda: os.getpid()).remote())
    here = psutil.Process().children(recursive=True) + [psutil.Process()]
    found = {it.laddr.ip for one in here for it in one.net_connections("tcp") if it.status == psutil.CONN_LISTEN}
    where = ray.get_runtime_context().gcs_address
    print(where, *sorted(found))
    secret = os.environ["RAY_AUTH_TOKEN"]
    arguments = [word for one in here for word in one.cmdline()]
    logs = Path(ray._private.worker._global_node.get_session_dir_path()).rglob("*")
    kept = [path.read_text(errors="replace") for path in logs if path.is_file()]
    print(len(secret), len(arguments) > 9, len(kept) > 9, any(secret in text for text in arguments + kept), flush=True)
    for setting in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "another"}, {"RAY_AUTH_MODE": "token"}):
        mine = {name: os.environ[name] for name in os.environ if not name.startswith("RAY_AUTH_") or setting}
        subprocess.run([sys.executable, "-c", JOINING], env=mine | {"RAY_ADDRESS": where} | setting, check=True)
print("RAY_AUTH_MODE" in os.environ, "RAY_AUTH_TOKEN" in os.environ)
"""
)


class Odd(Exception):
    pass


@both
def test_results_come_in_the_order_of_the_items(serial, workers):
    def slow_first(item):
        time.sleep(0.05 * (3 - item) if not serial else 0)
        return 10 * item

    assert map_tasks(slow_first, [0, 1, 2, 3, 3], serial=serial) == [0, 10, 20, 30, 30]
    assert map_tasks(slow_first, [], serial=serial) == []


@both
def test_every_finished_item_is_counted_once(serial, workers):
    heard = []
    map_tasks(lambda item: item, "abcde", serial=serial, done=heard.append)
    assert heard == sorted(heard) and set(heard) - {0} == {1, 2, 3, 4, 5}
    assert len(heard) == 5 or not serial  # on Ray a count is repeated every second


@both
def test_the_error_of_a_task_arrives_as_itself(serial, workers):
    def check(item):
        if item == 2:
            raise ValueError(f"item {item} is even")
        return item

    with pytest.raises(ValueError, match=r"^item 2 is even$") as caught:
        map_tasks(check, [1, 2, 3], serial=serial)
    assert type(caught.value) is ValueError


@both
def test_a_listener_that_raises_stops_the_work(serial, workers):
    def stop(count):
        raise Odd

    if serial:
        with pytest.raises(Odd):
            map_tasks(lambda item: item, [1, 2], serial=True, done=stop)
        return

    def endless(item):
        while True:  # Ray interrupts between two bytecodes, so not one long sleep
            time.sleep(0.05)

    begun = time.monotonic()
    with pytest.raises(Odd):
        map_tasks(endless, [0, 1], serial=False, done=stop)
    assert map_tasks(lambda item: item, [1, 2], serial=False) == [1, 2], "the CPUs are free again"
    assert time.monotonic() - begun < 60


BACKGROUND = """
import time
from pipelines.runs.cluster.attach import cluster
from pipelines.runs.cluster.map_tasks import map_tasks

def endless(item):
    while True:
        time.sleep(0.05)

def double(item):
    return 2 * item

def stop(count):
    raise KeyError("stop")

with cluster(2):
    map_tasks(double, [1, 2], serial=False)  # both workers have started
    try:
        map_tasks(endless, [1, 2], serial=False, done=stop)
    except KeyError as error:
        print(error, map_tasks(double, [1, 2], serial=False))
"""


def test_work_is_stopped_where_interrupts_are_ignored_as_in_a_shells_background():
    done = subprocess.run(
        [sys.executable, "-c", BACKGROUND],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.stdout, done.returncode) == ("'stop' [2, 4]\n", 0), done.stderr


def test_waiting_for_an_actor_beats_and_can_be_stopped(workers):
    import ray.exceptions

    class Slow:
        def nap(self, seconds):
            time.sleep(seconds)
            if seconds == 0:
                raise ValueError("no nap")
            return seconds

    def stop():
        raise Odd

    beats = []
    with actor(Slow, {}) as slow:
        assert wait_for(slow.nap.remote(1.5), lambda: beats.append(1)) == 1.5
        assert beats
        with pytest.raises(ValueError, match=r"^no nap$"):
            wait_for(slow.nap.remote(0), lambda: None)
    with pytest.raises(Odd), actor(Slow, {}) as slow:
        wait_for(slow.nap.remote(600), stop)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(slow.nap.remote(1))  # behind the nap of 600 seconds


def test_work_runs_in_other_processes_with_one_blas_thread(workers):
    found = map_tasks(lambda _: (os.getpid(), os.environ["OMP_NUM_THREADS"]), [0, 1], serial=False)
    assert os.getpid() not in {pid for pid, _ in found}
    assert {threads for _, threads in found} == {"1"}
    assert map_tasks(lambda _: os.getpid(), [0], serial=True) == [os.getpid()]


def test_an_actors_error_arrives_as_itself(workers):
    import ray

    class Fails:
        def work(self):
            raise KeyError("step-3")

    with pytest.raises(KeyError, match="step-3") as caught, actor(Fails, {}) as handle:
        unwrap(lambda: ray.get(handle.work.remote()))
    assert type(caught.value) is KeyError
    assert unwrap(lambda: 3) == 3
    with pytest.raises(Odd):
        unwrap(lambda: (_ for _ in ()).throw(Odd()))


def test_an_actor_serves_one_block_after_another_until_one_fails(workers):
    import ray

    class Counter:
        count = 0

        def add(self):
            self.count += 1
            return self.count

    class Other:
        def add(self):
            return "other"

    with actor(Counter, {}) as one, actor(Counter, {}) as two:
        assert [ray.get(handle.add.remote()) for handle in (one, two, one)] == [1, 1, 2]
    with actor(Other, {}) as handle:
        assert ray.get(handle.add.remote()) == "other"
    with pytest.raises(Odd), actor(Counter, {}) as used:
        assert ray.get(used.add.remote()) > 1
        raise Odd
    gone(used.add)


@pytest.fixture
def calls(monkeypatch):
    """The arguments of ray.init, which is not run, and whether the session was shut down."""
    import ray

    seen = SimpleNamespace(init=[], down=0, up=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: seen.up)
    monkeypatch.setattr(ray, "init", lambda **arguments: seen.init.append(arguments))
    monkeypatch.setattr(ray, "shutdown", lambda: setattr(seen, "down", seen.down + 1))
    monkeypatch.setattr(attach, "_idle", {})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return seen


def test_without_an_address_the_session_is_private_and_ends_with_the_block(calls):
    with pytest.raises(Odd), cluster(3):
        assert calls.down == 0
        raise Odd
    (arguments,) = calls.init
    assert (arguments["address"], arguments["num_cpus"], arguments["include_dashboard"]) == ("local", 3, False)
    assert arguments["dashboard_host"] == "127.0.0.1"  # should anybody ask for one
    assert arguments["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "1"
    assert calls.down == 1


def test_the_address_in_the_environment_is_honoured(calls, monkeypatch):
    asked = []
    monkeypatch.setenv("RAY_ADDRESS", "ray.example:6379")
    monkeypatch.setattr(address, "require_ray", asked.append)
    with cluster(3):
        pass
    (arguments,) = calls.init
    assert arguments["address"] == "ray.example:6379" and asked == ["ray.example:6379"]
    assert "num_cpus" not in arguments  # Ray refuses it on a cluster that exists


def test_a_session_of_this_process_is_joined_and_outlives_the_block(calls):
    calls.up = True
    with cluster(3):
        pass
    assert (calls.init, calls.down) == ([], 0)


def test_what_a_private_ray_opens_is_on_loopback_alone_and_asks_for_a_token_that_nobody_else_has():
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", LISTENING], env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    places, told, without, another, right, after = done.stdout.splitlines()
    where, *found = places.split()
    assert where.startswith("127.0.0.1:") and found
    assert set(found) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert told == "64 True True False", "a token of 32 bytes, in no argument and no file of the session"
    assert without.startswith(f"RAY_ADDRESS {where} asks for a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to")
    assert another.startswith(f"RAY_ADDRESS {where} refuses the token of RAY_AUTH_TOKEN; set RAY_AUTH_TOKEN to the")
    assert right == "joined 7"
    assert after == "False False", "the setting is taken back with the block"


SHORT = """
import os, sys
from pipelines.runs.cluster.attach import cluster
for name, value in [word.split("=", 1) for word in sys.argv[1:]]:
    os.environ[name] = value
    try:
        with cluster(1):
            print("started")
    except ValueError as error:
        print(error)
    del os.environ[name]
"""


def test_a_private_ray_that_cannot_start_says_which_variable_to_set(tmp_path):
    long, file = tmp_path / ("x" * 100), tmp_path / "file"
    file.write_text("")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") and name != "TMPDIR"}
    wrong = [f"TMPDIR={long}", f"RAY_TMPDIR={long}", f"RAY_TMPDIR={file}"]
    wrong += ["RAY_AUTH_MODE=of", f"RAY_AUTH_TOKEN_PATH={tmp_path}/absent"]
    done = subprocess.run([sys.executable, "-c", SHORT, *wrong], env=clean, capture_output=True, text=True, timeout=120)
    told = done.stdout.splitlines()
    assert len(told) == len(wrong), done.stderr
    for line, name in zip(told, ("TMPDIR", "RAY_TMPDIR"), strict=False):
        assert line.startswith(f"{name} {long} is too long for the sockets of Ray") and "; set RAY_TMPDIR to a" in line
        most = int(re.search(r"at most (\d+) letters", line)[1])
        assert 30 <= most <= 45, "a path of Ray's own takes the rest of 107"
    assert told[2].startswith(f"Ray cannot write below RAY_TMPDIR {file} ({file}/ray: Not a directory); set RAY_TMPDIR")
    assert told[3] == "RAY_AUTH_MODE 'of' is unknown, and Ray would ask for no token; set it to token or disabled"
    assert told[4].startswith(
        f"Ray's token is to be read from {tmp_path}/absent, which holds none (No such file or directory);"
    )


def test_an_address_space_in_which_ray_would_hang_is_refused(calls, monkeypatch):
    monkeypatch.setattr(free_memory, "read_limits", lambda: {"ulimit -v": 8e9})
    with pytest.raises(ValueError, match=r"8\.0 GB here \(ulimit -v\).*lift the limit \(ulimit -v unl"), cluster(1):
        pass
    assert calls.init == []
