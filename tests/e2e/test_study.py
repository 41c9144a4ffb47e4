"""A study from the command line through Dagster and Ray to its report, interrupted on the way and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from pipelines.runs.geometry.measuring import TABLES
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from tests.e2e import small
from tests.e2e.small import ARM

INTERRUPT_AT = ARM.horizon.resume_every


class Command:
    """`opd study run tiny` for one arm and seed, in a process group of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *small.ARGUMENTS],
            env=inherited | {"OPD_STORE": str(home / "store"), "DAGSTER_HOME": str(home / "dagster")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell's background job ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def wait_for(self, path: Path) -> None:
        deadline = time.monotonic() + 300
        while not path.exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"no {path.name}"
            time.sleep(0.02)

    def interrupt(self) -> None:
        """What Ctrl-C on a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=300)
        return self.process.returncode, out, err

    def left(self) -> list[str]:
        """Processes of the group, and any others that were started for this store."""
        mine = str(self.home).encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                group = int((folder / "stat").read_text().rpartition(")")[2].split()[2])
                if group == self.process.pid or mine in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


@pytest.fixture
def start(tmp_path):
    """start(): the command, over a store in which the arm's parents are complete."""
    store = Store(f"file://{tmp_path}/store")
    small.plant(store)
    started: list[Command] = []

    def run() -> Command:
        started.append(Command(tmp_path))
        return started[-1]

    yield run
    for command in started:
        command.kill()


def test_a_study_is_interrupted_continued_reported_and_reused(start, tmp_path):
    store = Store(f"file://{tmp_path}/store")
    trajectory = Trajectory(store, ARM.name, 0)
    folder = Path(store.path(trajectory.prefix))

    first = start()
    first.wait_for(folder / f"resume/step-{INTERRUPT_AT:08d}/facts.json")
    first.interrupt()
    code, _, err = first.end()
    assert (code, err.count("\n")) == (130, 1), err
    assert "the same command continues" in err
    assert trajectory.end() is None
    deadline = time.monotonic() + 30
    while first.left() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert first.left() == []

    resume = trajectory.load_resume()
    assert resume is not None
    step, _, facts = resume
    assert step >= INTERRUPT_AT
    # A mark that only a start from this state can carry on.
    facts["tables"]["training"][0]["loss"] = 123.0
    (folder / f"resume/step-{step:08d}/facts.json").write_text(json.dumps(facts))
    kept = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("step-*/*")}
    kept[folder / "run.json"] = ((folder / "run.json").read_bytes(), (folder / "run.json").stat().st_mtime_ns)
    assert {path.parent.name for path in kept} >= {"step-00000000", "step-00000025"}

    code, out, err = start().end()
    assert (code, err) == (0, "")
    assert "6 Dagster runs, 3 complete and reused, in " in out
    assert "trained, measured: 100 steps" in out and "page: " in out and "orchestration" in out
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept} == kept
    assert trajectory.steps() == trajectory.end()["snapshots"] == [0, *ARM.horizon.snapshot_steps()]
    rows = pl.read_parquet(store.path(f"lake/training/recipe={ARM.name}/seed=0/part-0.parquet"))
    assert rows["step"].to_list() == list(range(1, 101))
    assert rows["loss"][0] == 123.0
    assert rows["loss"][-5:].mean() < rows["loss"][1:6].mean() - 0.1
    for table in TABLES:
        assert pl.scan_parquet(f"{tmp_path}/store/lake/{table}/**/*.parquet").collect().height > 0, table
    assert "study tiny" in (tmp_path / "store/reports/tiny/index.html").read_text()
