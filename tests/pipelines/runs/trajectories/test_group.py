"""A run of two workers: the losses of one to float tolerance, and a whole store whatever becomes of a worker."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from opd_ops.recipe import Horizon, Resources
from pipelines import lake
from pipelines.runs.trajectories.run import TrainingRun
from pipelines.runs.trajectories.training import train
from pipelines.store.objects import Store
from pipelines.store.rollouts import Rollouts
from pipelines.store.trajectory import Trajectory
from tests.processes import command_line, list_family

TWO = Resources(workers=2)
# Sums over sequences are added in another order: a hundred ulp of fp32 in the first step, and the rows of a step stand
# on the weights of all before it. The norm of a gradient that is nearly nothing is that of its roundings.
CLOSE = {"rel": 1e-4, "abs": 1e-6}
# AdamW moves a weight by the learning rate whatever the size of its gradient, so that a rounding can turn a step where
# a gradient is nearly nothing: two weights are never further apart than two steps, and nearly all are an ulp apart.
RATE, STEPS = 1e-3, 7


class Stop(Exception):
    """Ends a run from outside."""


def rows(store, recipe, table="training"):
    return lake.scan(table, store.uri).filter(recipe=recipe).sort("step").collect().to_dicts()


def weights(store, recipe, step):
    return {name: ref.read() for name, ref in Trajectory(store, recipe, 0).refs(step).items()}


def alike(one, other, recipe, step=STEPS):
    """The same steps to float tolerance, and weights that are close."""
    ours, theirs = rows(one, recipe), rows(other, recipe)
    assert len(ours) == len(theirs) == step
    for a, b in zip(ours, theirs, strict=True):
        for column, value in a.items():
            expected = value if value is None or isinstance(value, str) else pytest.approx(value, **CLOSE)
            assert b[column] == expected, (a["step"], column)
    before, after = weights(one, recipe, step), weights(other, recipe, step)
    assert list(before) == list(after)
    far = torch.cat([(w - after[name]).abs().flatten() for name, w in before.items()])
    assert far.max() <= 2 * RATE * step and far.quantile(0.99) < 1e-6


def layout(store, recipe):
    """Names of what a run keeps, and the names, dtypes and shapes of its snapshots' tensors."""
    trajectory = Trajectory(store, recipe, 0)
    shapes = {
        (step, name): (ref.dtype, tuple(ref.shape))
        for step in trajectory.steps()
        for name, ref in trajectory.refs(step).items()
    }
    root = Path(store.path(""))
    kept = {str(file.relative_to(root)) for file in root.rglob("*") if f"{recipe}/" in str(file)}
    return kept, shapes


@pytest.fixture(scope="module")
def pair(arm, tmp_path_factory, workers):
    """A store with `pre`, trained by two."""
    store = Store(f"file://{tmp_path_factory.mktemp('pair')}")
    train(store, arm("pre", resources=TWO), 0)
    return store


def test_sft_by_two_is_that_of_one(pair, grown):
    alike(grown, pair, "mini.pre")
    assert layout(pair, "mini.pre") == layout(grown, "mini.pre")
    made, alone = (Trajectory(store, "mini.pre", 0).run() for store in (pair, grown))
    assert (made["provenance"]["workers"], alone["provenance"]["workers"]) == (2, 1)
    assert made["fingerprint"] == alone["fingerprint"] and made["inputs"] == alone["inputs"]


def test_so_is_a_distillation_that_draws_and_asks(arm, grown, seeded, workers):
    store = seeded("pre", "teacher")
    train(store, arm("opd", resources=TWO), 0)
    alike(grown, store, "mini.opd")
    assert layout(store, "mini.opd") == layout(grown, "mini.opd")
    for step in range(1, STEPS + 1):
        ours, theirs = (Rollouts(one, Trajectory(one, "mini.opd", 0).prefix).read(step) for one in (grown, store))
        assert [row["tokens"] for row in ours] == [row["tokens"] for row in theirs]


def test_a_run_goes_on_with_two_and_then_with_one(arm, store, tmp_path, workers):
    horizon = Horizon(steps=12, snapshots=(1,), resume_every=2)
    whole, alone = Store(f"file://{tmp_path}/whole"), arm("pre", horizon=horizon)
    train(whole, alone, 0, serial=True)
    assert not TrainingRun(store, alone, 0, {}).work(3).finished

    def stop(state):
        if state.step >= 6:
            raise Stop

    with pytest.raises(Stop):
        train(store, arm("pre", horizon=horizon, resources=TWO), 0, progress=stop)
    resume = Trajectory(store, "mini.pre", 0).load_resume()
    assert resume is not None
    step, tensors, facts = resume
    assert (step, facts["workers"]) == (6, 2)
    shapes = {name: (w.dtype, tuple(w.shape)) for name, w in tensors.items()}
    train(store, alone, 0, serial=True)
    alike(whole, store, "mini.pre", step=12)
    masters = weights(store, "mini.pre", 12)
    moments = ("master", "exp_avg", "exp_avg_sq")
    assert shapes == {f"{m}/{name}": (torch.float32, tuple(w.shape)) for m in moments for name, w in masters.items()}


def test_another_number_does_not_go_on_from_what_it_could_not_repeat(arm, store, contents):
    assert not TrainingRun(store, arm("pre"), 0, {}).work(3).finished  # its resume state is of step 2
    before = contents(store)
    with pytest.raises(ValueError) as caught:
        TrainingRun(store, arm("pre", resources=TWO), 0, {}, ranks=SimpleNamespace(count=2))
    assert str(caught.value) == (
        "mini.pre seed 0: after step 2, from which it goes on, resources.workers=1 made weights or rollouts whose last "
        "digits 2 would not repeat: set workers=1 until the next resume state"
    )
    assert contents(store) == before
    assert TrainingRun(store, arm("pre"), 0, {}).work().finished


def test_where_a_follower_is_killed_both_are_replaced_and_the_run_ends_the_same(arm, pair, store, contents, workers):
    killed = []

    def kill(state):
        if state.step == 5 and not killed:
            killed.extend(one for one in list_family([os.getpid()]) if command_line(one).startswith("ray::WorkerActor"))
            for one in killed:
                os.kill(one.pid, signal.SIGKILL)

    train(store, arm("pre", resources=TWO), 0, progress=kill)
    assert len(killed) == 1
    key = lambda found: {k: data for k, data in contents(found).items() if "mini.pre/" in k}
    assert key(store) == key(pair)
