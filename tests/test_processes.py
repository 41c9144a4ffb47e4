"""Processes are ended by their ids, whole families of them, and nobody else's."""

import os
import signal
import subprocess
import time

import pytest

from tests import processes

FAMILY = "trap '' TERM; sleep 1000 & sleep 1000 & wait"


@pytest.fixture
def family(tmp_path):
    """A shell with two children, which ignores SIGTERM."""
    shell = processes.start(["/bin/sh", "-c", FAMILY], tmp_path / "log", os.environ)
    limit = time.monotonic() + 20
    while len(processes.list_family([shell.pid])) < 3 and time.monotonic() < limit:
        time.sleep(0.02)
    yield shell
    processes.kill(processes.list_family([shell.pid]))
    shell.wait()


def test_a_family_is_ended_whole_also_when_it_does_not_want_to(family):
    members = processes.list_family([family.pid])
    assert len(members) == 3 and processes.command_line(members[0]).startswith("/bin/sh")
    processes.stop([family], grace=0.3)
    assert family.returncode == -signal.SIGKILL
    assert processes.wait_for_end(members, 5.0) == [] and processes.command_line(members[0]) == ""


def test_orphans_that_were_known_are_ended(family):
    members = processes.list_family([family.pid])
    family.kill()
    family.wait()
    orphans = processes.wait_for_end(members, 0.0)
    assert len(orphans) == 2 and processes.kill(orphans) == 2
    assert processes.wait_for_end(orphans, 5.0) == [] and processes.kill(members) == 0


def test_sigint_reaches_what_a_background_job_started(tmp_path):
    """A shell's background job ignores SIGINT, and what it starts would, too."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        started = processes.start(["/bin/sleep", "1000"], tmp_path / "log", os.environ)
    finally:
        signal.signal(signal.SIGINT, before)
    processes.stop([started], number=signal.SIGINT)
    assert started.returncode == -signal.SIGINT


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be someone else")
def test_a_process_may_be_anothers(tmp_path):
    log = tmp_path / "log"
    assert processes.start(["/usr/bin/id", "-u"], log, os.environ, user=65534).wait(20) == 0
    assert log.read_text() == "65534\n"
    assert subprocess.run(["/usr/bin/id", "-u"], capture_output=True, text=True).stdout == "0\n"
