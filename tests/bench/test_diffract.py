"""diffract-core runs in an environment of its own Python; what it is given are the weights of the files."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench import diffract
from tests.bench.checkpoints import refs, write_trajectory
from tests.bench.environment import Absent, find_interpreter
from tests.bench.shapes import Shape

NAME = "model.layers.0.self_attn.q_proj.weight"
LIBRARY = """
import json, os, numpy, time
from contextlib import nullcontext
calls = []
class Session:
    def __init__(self, profile):
        calls.append(["session", profile])
        self.models = self.compute = self
    def __enter__(self): return self
    def __exit__(self, *_): json.dump(calls, open(os.environ["CALLS"], "w"))
    def add(self, weights, model_id):
        path = os.environ["CALLS"] + "." + model_id + ".npy"
        (name, weight), = weights.items()
        numpy.save(path, weight)
        calls.append(["add", model_id, name])
    def filter(self, model_ids):
        calls.append(["filter", *model_ids])
        return self
    def apply(self, *fields):
        end = time.process_time() + (0.3 if sum(call[0] == "filter" for call in calls) == 1 else 0.1)
        while time.process_time() < end: pass
        calls.append(["apply", *fields])
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A stand-in for the package that takes 0.3 s for the first pair and 0.1 s for each other; where it keeps calls."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "diffract.py").write_text(LIBRARY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "library"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.json"))
    return tmp_path / "calls.json"


def test_the_base_is_added_once_and_a_further_snapshot_costs_itself(library, tmp_path):
    base, *steps = write_trajectory(tmp_path / "weights", [Shape(NAME, 12, 10)], "rl", 3)
    spent = diffract.measure(Path(sys.executable), base, steps)
    assert spent.pair == pytest.approx(0.3, abs=0.15) and spent.further == pytest.approx(0.1, abs=0.08)
    calls = json.loads(library.read_text())
    fields = ["apply", "stable_rank", "effective_rank", "l_agreement", "r_agreement"]
    assert calls == [
        ["session", "ram"], ["add", "base", NAME],
        *(call for at in range(3) for call in (["add", f"step-{at}", NAME], ["filter", "base", f"step-{at}"], fields)),
    ]  # fmt: skip
    for model, path in zip(("base", "step-0", "step-2"), (base, steps[0], steps[2]), strict=True):
        weight = np.load(f"{library}.{model}.npy")
        assert weight.dtype == np.float32 and np.array_equal(weight, refs(path)[NAME].read().float().numpy())


def test_a_failure_is_a_reason(library, tmp_path):
    base, *steps = write_trajectory(tmp_path / "weights", [Shape(NAME, 12, 10)], "rl", 2)
    (tmp_path / "library" / "diffract.py").write_text("raise ImportError('no such kernel')")
    with pytest.raises(Absent, match=r"^failed: ImportError: no such kernel$"):
        diffract.measure(Path(sys.executable), base, steps)


def test_an_interpreter_is_this_one_or_one_on_path_that_starts(tmp_path, monkeypatch):
    here = ".".join(map(str, sys.version_info[:2]))
    assert find_interpreter("") == find_interpreter(here) == sys.executable
    shim, real = tmp_path / "shims" / "python9.9", tmp_path / "bin" / "python9.9"
    for path, code in ((shim, 127), (real, 0)):
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\nexit {code}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{real.parent}", prepend=":")
    assert find_interpreter("9.9") == str(real)
    with pytest.raises(Absent, match=r"it needs Python 9\.8, and no python9\.8 is on PATH"):
        find_interpreter("9.8")
