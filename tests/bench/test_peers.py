"""Tools that are absent or fail give a reason, not an error; what they report is read in our terms."""

import dataclasses
import json
import math
import sys

import pytest

from tests.bench import engine, peers
from tests.bench.environment import Absent
from tests.bench.figures.snapshot import snapshot


def test_without_the_tools_the_bench_goes_on(monkeypatch, no_network, tmp_path, tiny, told):
    monkeypatch.setattr(peers, "TOOLS", dataclasses.replace(peers.TOOLS, folder=tmp_path / "peers"))
    tell, shares = told
    rows = snapshot(type(tiny)(**{**vars(tiny), "install": True}), tell)
    absent = [row for row in rows if row.quantity.endswith("over ours") and row.value is None]
    assert [row.note for row in absent] == 2 * ["not installed: ERROR: No matching"]
    assert all(row.met is None and row.goal == ">= 5" for row in absent)
    over = {row.case: row for row in rows if row.quantity == "published recipe over ours"}
    assert set(over) == set(engine.SETS) and all(row.met is not None for row in over.values())
    assert shares == sorted(shares)


def test_a_tool_runs_in_its_own_process_and_its_imports_are_taken_off(monkeypatch, tmp_path):
    monkeypatch.setitem(peers.IMPORTS, "modeldelta", "import sys, json, time\n")
    work = "end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    module = {"name": "a.weight", "frob_norm": 2.0, "frob_norm_relative": 0.1, "top_singular_values": [1.0, 0.5]}
    found = {"modules": [{**module, "effective_rank": 3.0, "sparsity": 0.9}]}
    program = f"json.dump({found!r}, open(sys.argv[3], 'w'))\n"
    monkeypatch.setitem(peers.CALLS, "modeldelta", work + program)
    measured = peers.measure("modeldelta", sys.executable, tmp_path, tmp_path)
    assert measured.seconds == pytest.approx(0.3, abs=0.15)
    assert measured.values["a.weight"]["stable_rank"] == 4.0
    monkeypatch.setitem(peers.CALLS, "modeldelta", "raise ValueError('no such model')")
    with pytest.raises(Absent, match=r"^failed: ValueError: no such model$"):
        peers.measure("modeldelta", sys.executable, tmp_path, tmp_path)


def test_an_interpreter_that_is_not_there_is_a_reason(tmp_path):
    with pytest.raises(Absent, match="No such file"):
        peers.measure("modeldelta", tmp_path / "python", tmp_path, tmp_path)


def test_weightwatchers_squares_and_entropy_are_read():
    row = {"longname": "a", "norm": 9.0, "spectral_norm": 4.0, "stable_rank": 2.25, "matrix_rank": 8, "entropy": 0.5}
    assert peers.READERS["weightwatcher"](json.loads(json.dumps([row]))) == {
        "a.weight": {
            "frobenius": 3.0, "spectral_norm": 2.0, "stable_rank": 2.25,
            "effective_rank_energy": pytest.approx(math.sqrt(8)),
        }
    }  # fmt: skip
