"""What a refusal of a run says to do is done as it is printed, and then the run is made."""

import re
from dataclasses import replace

import pytest

from opd_ops.recipe import AdamW, Evaluation, FinalOf, Gate, Horizon
from opd_ops.training.drawing import Drawing
from opd_ops.training.loop import Diverged, Trainer
from pipelines import cli
from pipelines.cli import names
from pipelines.cli import study as studies
from pipelines.runs.trajectories.run import TrainingRun
from pipelines.runs.trajectories.training import complete, train
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Study
from tests.pipelines.runs.mini import TASK, arm

SHORT = Horizon(steps=3, snapshots=(1,), resume_every=1)
PRE = arm("pre", horizon=SHORT)
SLOWER = replace(PRE, optimizer=AdamW(learning_rate=1e-4))
WIDE = replace(PRE.rollout, max_new_tokens=4000)


@pytest.fixture
def store(tmp_path, monkeypatch):
    found = Store(f"file://{tmp_path}/store")
    monkeypatch.setenv("OPD_STORE", found.uri)
    return found


@pytest.fixture
def refused(store):
    """refused(recipe, steps=) -> the line that training it ends with."""

    def line(recipe, seed=0):
        with pytest.raises(ValueError) as caught:
            train(store, recipe, seed, serial=True)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return line


def follow(line, monkeypatch, recipe, store):
    """Carry out the `opd` command in a line: --yes answers it, and a study run trains the recipe."""
    (command,) = re.findall(r"opd ((?:rm|study run) [^);,]+)", line)
    study = Study(name="mini", title="", models=(recipe,), suites={"core": ()}, seeds=(0,), anchor=None)
    monkeypatch.setattr(names, "resolve_study", {"mini": study}.__getitem__)
    monkeypatch.setattr(studies, "_run_assets", lambda *a: train(store, recipe, 0, serial=True) and 0)
    assert cli.main([*command.split(), "--yes"]) == 0
    return command


@pytest.mark.parametrize(
    "bad, mended, said",
    [
        (replace(PRE, rollout=WIDE), PRE, "lower max_new_tokens"),
        (replace(PRE, evaluation=Evaluation(problems=10**5, samples=1)), PRE, "ask for fewer"),
        (replace(PRE, task=replace(TASK, options={"operation": 1})), PRE, "it has operations, tag"),
        (replace(PRE, start=FinalOf(recipe="mini.none")), PRE, "train it first"),
    ],
    ids=["a window", "held-out problems", "an option", "a parent"],
)
def test_what_is_refused_before_training_leaves_no_run_and_the_mended_recipe_trains(refused, store, bad, mended, said):
    assert said in refused(bad)
    assert store.find("runs") == []
    train(store, mended, 0, serial=True)
    assert complete(store, mended, 0)


def test_a_changed_recipe_takes_the_name_after_the_printed_command(refused, store, monkeypatch):
    train(store, PRE, 0, serial=True)
    assert follow(refused(SLOWER), monkeypatch, SLOWER, store) == "rm mini.pre/0"
    train(store, SLOWER, 0, serial=True)
    assert cli.main(["rm", "mini.pre/0", "--yes"]) == 0
    assert cli.main(["rm", "mini.pre/0", "--undo", "1"]) == 0
    assert complete(store, PRE, 0)


@pytest.mark.parametrize("step", [1, 3])
def test_a_run_that_diverged_is_begun_anew_by_the_printed_command(refused, store, monkeypatch, step):
    advance = Trainer.advance

    def diverging(self):
        if self.step + 1 == step:
            raise Diverged(f"step {step}: the gradient norm is nan; lower the learning rate")
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", diverging)
        line = refused(PRE)
    assert "lower the learning rate" in line
    if step == 1:  # nothing is lost where nothing was made
        train(store, SLOWER, 0, serial=True)
    else:
        assert follow(line, monkeypatch, SLOWER, store) == "study run mini --replace pre"
    assert complete(store, SLOWER, 0)


def test_a_passed_gate_and_a_missed_one_name_the_command_too(refused, store, monkeypatch):
    gate = replace(SHORT, gate=Gate(every=2, temperature=1.0, low=0.5, high=0.6))
    for right, said in ((1.0, "lower the learning rate"), (0.0, "raise the limit")):
        with monkeypatch.context() as patch:
            patch.setattr(Drawing, "scores", lambda self, answered, right=right: [right] * len(answered))
            line = refused(replace(PRE, horizon=gate))
        assert said in line
        assert follow(line, monkeypatch, PRE, store) == "study run mini --replace pre"
        assert complete(store, PRE, 0)
        assert cli.main(["rm", "mini.pre/0", "--yes"]) == 0


def test_a_child_of_a_run_that_was_made_again_is_made_again_by_the_printed_command(refused, store, monkeypatch):
    child = arm("teacher", horizon=SHORT)
    train(store, PRE, 0, serial=True)
    TrainingRun(store, child, 0, {}).work(1)
    assert cli.main(["rm", "mini.pre/0", "--yes"]) == 0
    train(store, SLOWER, 0, serial=True)
    line = refused(child)
    assert "was made from other models (start: " in line
    assert follow(line, monkeypatch, child, store) == "rm mini.teacher/0"
    train(store, child, 0, serial=True)
    assert Trajectory(store, "mini.teacher", 0).run()["inputs"]["start"] == Trajectory(store, "mini.pre", 0).digest(3)
