"""A task in a file of one's own: its problems, tokens and verifier, in this process, its helper and on Ray."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from opd_ops import outside
from opd_ops.recipe import Sft, Task
from opd_ops.tasks import registry
from opd_ops.tasks.guard import Guarded
from pipelines.runs.trajectories import starts
from pipelines.runs.trajectories.training import train
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from tests.pipelines.runs import mini

ROOT = Path(__file__).parents[4]
DOUBLES = '''
"""Double a digit: the tokens 5 to 14 are digits, and 20 ends a response."""
import os
from opd_ops.tasks.task import Check, Problem

class task:
    pad, bos, eos, name, instant = 18, 19, 20, "doubles", False

    def __init__(self, modulus=10):
        self.modulus = modulus

    def problems(self, split, count, rng):
        digits = rng.permutation(range(0, 10, 2) if split == "train" else range(1, 10, 2))[:count]
        return [Problem(prompt=[19, 5 + int(d)], answer=str(2 * int(d) % self.modulus)) for d in digits]

    def demonstrations(self, stream, count, rng):
        problems = [self.problems("train", 1, rng)[0] for _ in range(count)]
        return [(p.prompt, [5 + int(p.answer), 20]) for p in problems]

    def check(self, problem, response):
        text = "".join(str(token - 5) for token in response)
        return Check(function=f"{__file__}:verify", response=text, arguments={"gold": problem.answer})

    def verify(self, problem, response):
        return self.check(problem, response).run()

    def facts(self):
        return {"modulus": self.modulus}

def verify(response, gold):
    if response == "9":
        open("written", "w")
    return float(response == gold)
'''


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The file of the task, which OPD_TASKS names relative to the working directory."""
    for variable in outside.VARIABLES:
        monkeypatch.setenv(variable, "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "doubles.py").write_text(DOUBLES)
    monkeypatch.setenv("OPD_TASKS", "./doubles.py")
    return tmp_path / "doubles.py"


def arm(name, **changes):
    return mini.arm(name, arm="x", start=mini.ARMS["pre"]["start"], task=Task(name="doubles"), **changes)


def test_its_verifier_works_in_the_confined_helper_and_nowhere_else(path):
    task = Guarded(registry.build(Task(name="doubles"), None))
    try:
        (problem,) = task.problems("train", 1, np.random.default_rng(0))
        right = 5 + int(problem.answer)
        assert task.rewards([(problem, [right]), (problem, [right, right]), (problem, [])]) == [1.0, 0.0, 0.0]
        with pytest.raises(ValueError, match=r"PermissionError: a verifier may not open"):
            task.rewards([(problem, [14])])
        assert not (path.parent / "written").exists()
    finally:
        task.close()


def test_a_model_from_random_weights_has_the_special_tokens_of_the_task(path):
    recipe = arm("pre", objective=Sft(stream="any"))
    config = starts.load(Store("memory://foreign"), recipe.start, 0, recipe.task).config
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (18, 19, 20)


SCRIPT = """
import sys
from pipelines.runs.cluster.attach import cluster
from pipelines.runs.trajectories.training import train
from pipelines.store.objects import Store
from tests.pipelines.runs.trajectories.test_foreign_task import arm

with cluster(2):
    train(Store(sys.argv[1]), arm("rlvr"), 0)
"""


def test_a_run_on_it_is_the_same_here_and_on_ray(path, tmp_path):
    stores = [Store(f"file://{tmp_path / name}") for name in ("here", "ray")]
    recipe = arm("rlvr")
    train(stores[0], recipe, 0, serial=True)
    # In a process of its own, whose Ray starts with the variable.
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = inherited | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", SCRIPT, stores[1].uri], env=environment, check=True, timeout=300)
    here, ray = (Trajectory(store, recipe.name, 0) for store in stores)
    assert here.end()["digest"] == ray.end()["digest"]
    assert here.run()["inputs"]["task"] == {"modulus": 10}


def test_options_and_names_are_checked_as_those_of_any_task(path, monkeypatch):
    with pytest.raises(ValueError, match="task doubles has no option radix; it has modulus"):
        registry.build(Task(name="doubles", options={"radix": 3}), None)
    with pytest.raises(
        ValueError, match=r"unknown task 'triples'; known: chains, jsonl, reasoning, sums, doubles; OPD"
    ):
        registry.build(Task(name="triples"), None)
    (path.parent / "more").mkdir()
    (path.parent / "more/doubles.py").write_text(DOUBLES)
    monkeypatch.setenv("OPD_TASKS", "./doubles.py,./more/doubles.py,./doubles.py:verify")
    with pytest.raises(ValueError, match=r"two tasks are called 'doubles', of .*/doubles\.py:task and of .*/more/"):
        registry.find_kind("doubles")
    assert registry.find_kind("sums").__name__ == "Sums"
    (path.parent / "sums.py").write_text(DOUBLES)
    monkeypatch.setenv("OPD_TASKS", "./sums.py")
    with pytest.raises(ValueError, match=r"two tasks are called 'sums', of this package and of .*sums\.py"):
        registry.find_kind("sums")
