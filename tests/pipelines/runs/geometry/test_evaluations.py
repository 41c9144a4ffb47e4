"""An evaluation that fails ends in one line, with the state before it kept, and is made up for when the run goes on."""

from contextlib import contextmanager

import pytest

from opd_ops.recipe import Gate, Horizon
from opd_ops.training.loop import Trainer
from pipelines.runs.trajectories.failures import LearningFailed, StepFailed
from pipelines.runs.trajectories.run import TrainingRun
from pipelines.runs.trajectories.training import train
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

LINE = "task chains: the verifier took longer than 10 s, on the response"


@contextmanager
def failing(step, temperature):
    """Evaluations of this step at this temperature fail inside."""
    real = Trainer.evaluate

    def evaluate(self, asked=None):
        if (self.step, asked) == (step, temperature):
            raise ValueError(f"{LINE}\nmore")
        return real(self, asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "evaluate", evaluate)
        yield


def gated(arm, low=0.0):
    gate = Gate(low=low, high=1.0, every=4)
    return arm("pre", horizon=Horizon(steps=7, gate=gate, snapshots=(1, 3), resume_every=2))


def finish(run):
    while not run.work(5).finished:
        pass


@pytest.mark.parametrize(
    ("low", "step", "temperature", "last"),
    [
        (0.0, 0, None, 0),  # where the run begins
        (0.0, 4, 1.0, 3),  # the gate's reading
        (0.0, 4, None, 4),  # the full evaluation of a gate that has opened
        (2.0, 4, 1.0, 3),  # a gate that stays shut, and the limit is a failure
    ],
)
def test_a_failed_evaluation_keeps_the_state_and_is_made_up_for(
    low, step, temperature, last, arm, store, contents, tmp_path
):
    recipe = gated(arm, low)
    with failing(step, temperature), pytest.raises(StepFailed) as caught:
        train(store, recipe, 0, serial=True)
    message = str(caught.value)
    assert message.startswith(LINE) and "\n" not in message and "more" not in message
    assert f"mini.pre seed 0: the state after step {step} is kept, its last snapshot is step {last}" in message
    assert Trajectory(store, recipe.name, 0).load_resume()[0] == step
    whole = Store(f"file://{tmp_path}/whole")
    if low:  # were the reading left out, the run would not know that the gate stayed shut
        for each in (store, whole):
            with pytest.raises(LearningFailed, match="at step 7, the limit, is below"):
                train(each, recipe, 0, serial=True)
        rows = [
            TrainingRun(each, recipe, 0, {}).tables["evaluation"] for each in (store, whole)
        ]  # of the resume state of step 6
        assert rows[0] == rows[1] and [row["step"] for row in rows[0]] == [0, 0, 4]
        return
    for each in (store, whole):
        train(each, recipe, 0, serial=True)
    assert contents(store) == contents(whole)


def test_a_run_that_stops_at_a_failed_reading_and_again_is_still_due(arm, store, contents, tmp_path):
    recipe, whole = gated(arm), Store(f"file://{tmp_path}/whole")
    for _ in range(2):
        with failing(4, 1.0), pytest.raises(StepFailed):
            train(store, recipe, 0, serial=True)
    run = TrainingRun(store, recipe, 0, {})
    assert run.trainer.step == 4 and run.due
    finish(run)
    train(whole, recipe, 0, serial=True)
    assert contents(store) == contents(whole)


def test_a_failed_last_evaluation_without_a_gate_is_made_up_for(arm, grown, store, contents):
    with failing(7, None), pytest.raises(StepFailed, match="the state after step 7 is kept, its last snapshot is ste"):
        train(store, arm("pre"), 0, serial=True)
    train(store, arm("pre"), 0, serial=True)
    ours = {key: data for key, data in contents(grown).items() if "mini.pre/" in key}
    assert contents(store) == ours


def test_a_mistake_in_the_code_of_an_evaluation_keeps_its_traceback(arm, store, monkeypatch):
    monkeypatch.setattr(Trainer, "evaluate", lambda self, *a: [][0])
    with pytest.raises(IndexError):
        TrainingRun(store, arm("pre"), 0, {})
    assert Trajectory(store, "mini.pre", 0).load_resume() is None
