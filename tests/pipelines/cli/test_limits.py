"""A process that may reserve little memory is refused in one line, where its libraries would end it or raise."""

import resource
import subprocess
import sys

import pytest

from pipelines.runs.cluster import free_memory


@pytest.mark.parametrize("limit", [200_000_000, 600_000_000])
def test_a_small_address_space_is_one_line(limit, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "tables", "--out", str(tmp_path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: the address space of a process is limited to {limit / 1e9:.1f} GB here")
    assert done.stderr.endswith("lift the limit (ulimit -v unlimited), and give the command again\n")


@pytest.mark.parametrize("command", ["measure --base {0} --snapshot 1={1}", "report tiny"])
def test_what_draws_is_refused_before_any_work_where_drawing_would_crash(command, refused, folders, monkeypatch):
    monkeypatch.setattr(free_memory, "read_limits", lambda: {"ulimit -v": 6e9})
    err = refused(*command.format(folders[0], folders[100]).split())
    assert "limited to 6.0 GB here (ulimit -v), and this command reserves 80.0 GB" in err
