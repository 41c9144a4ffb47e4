"""Processes are ended by their ids, whole families of them, and nobody else's."""

import os
import signal
import subprocess
import time

import pytest

from deploy import processes

FAMILY = "trap '' TERM; sleep 1000 & sleep 1000 & wait"


@pytest.fixture
def family(tmp_path):
    """A shell with two children, which ignores SIGTERM."""
    shell = processes.start(["/bin/sh", "-c", FAMILY], tmp_path / "log", os.environ)
    limit = time.monotonic() + 20
    while len(processes.descendants([shell.pid])) < 3 and time.monotonic() < limit:
        time.sleep(0.02)
    yield shell
    processes.kill(processes.descendants([shell.pid]))
    shell.wait()


def test_a_family_is_ended_whole_also_when_it_does_not_want_to(family):
    known = processes.descendants([family.pid])
    assert len(known) == 3 and known[family.pid] == processes.born(family.pid)
    processes.stop([family], grace=0.3)
    assert family.returncode == -signal.SIGKILL
    assert processes.left(known, 5.0) == {}


def test_a_number_that_is_anothers_now_is_left_alone(family):
    assert processes.kill({family.pid: "1"}) == 0
    assert processes.finish({family.pid: "1"}, 0.0) == 0
    assert family.poll() is None


def test_orphans_that_were_known_are_ended(family):
    known = processes.descendants([family.pid])
    family.kill()
    family.wait()
    left = processes.left(known, 0.0)
    assert len(left) == 2 and family.pid not in left
    processes.finish(left, 0.2)
    assert processes.left(left, 5.0) == {}


def test_a_group_is_shared_when_asked_for_and_otherwise_its_own(tmp_path):
    first = processes.start(["/bin/sleep", "1000"], tmp_path / "log", os.environ)
    second = processes.start(["/bin/sleep", "1000"], tmp_path / "log", os.environ, group=first.pid)
    try:
        groups = [os.getpgid(one.pid) for one in (first, second)]
        assert groups == [first.pid, first.pid] and first.pid != os.getpgrp()
    finally:
        processes.stop([first, second])
    assert first.returncode == second.returncode == -signal.SIGTERM


def test_sigint_reaches_what_a_background_job_started(tmp_path):
    """A shell's background job ignores SIGINT, and what it starts would, too."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        started = processes.start(["/bin/sleep", "1000"], tmp_path / "log", os.environ)
    finally:
        signal.signal(signal.SIGINT, before)
    processes.stop([started], number=signal.SIGINT)
    assert started.returncode == -signal.SIGINT


def test_free_ports_are_free_and_different():
    ports = processes.free_ports(20)
    assert len(set(ports)) == 20 and not any(processes.answers(port) for port in ports)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be someone else")
def test_a_process_may_be_anothers(tmp_path):
    log = tmp_path / "log"
    assert processes.start(["/usr/bin/id", "-u"], log, os.environ, user=65534).wait(20) == 0
    assert log.read_text() == "65534\n"
    assert subprocess.run(["/usr/bin/id", "-u"], capture_output=True, text=True).stdout == "0\n"
