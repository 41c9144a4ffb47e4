"""Tools that are absent or fail give a reason, not an error."""

import dataclasses
import sys

import pytest

from tests.bench import engine, peers
from tests.bench.environment import Absent
from tests.bench.figures.snapshot import measure_snapshot


def test_without_the_tools_the_bench_goes_on(monkeypatch, no_network, tmp_path, tiny):
    monkeypatch.setattr(peers, "TOOLS", dataclasses.replace(peers.TOOLS, folder=tmp_path / "peers"))
    rows = measure_snapshot(dataclasses.replace(tiny, install=True))
    absent = [row for row in rows if row.quantity.endswith("over ours") and row.value is None]
    assert [row.note for row in absent] == 2 * ["not installed: ERROR: No matching"]
    assert all(row.met is None and row.goal == ">= 5" for row in absent)
    over = {row.case: row for row in rows if row.quantity == "published recipe over ours"}
    assert set(over) == set(engine.SETS) and all(row.met is not None for row in over.values())


def test_a_tool_runs_in_its_own_process_and_its_imports_are_taken_off(monkeypatch, tmp_path):
    monkeypatch.setitem(peers.IMPORTS, "modeldelta", "import time\n")
    work = "end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    monkeypatch.setitem(peers.CALLS, "modeldelta", work)
    assert peers.measure("modeldelta", sys.executable, tmp_path, tmp_path) == pytest.approx(0.3, abs=0.15)
    monkeypatch.setitem(peers.CALLS, "modeldelta", "raise ValueError('no such model')")
    with pytest.raises(Absent, match=r"^failed: ValueError: no such model$"):
        peers.measure("modeldelta", sys.executable, tmp_path, tmp_path)
