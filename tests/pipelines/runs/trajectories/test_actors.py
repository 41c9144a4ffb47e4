"""A run whose rollouts and teacher sit in actors of their own ends with the bytes of one process."""

import os
import shutil
import signal

import pytest

from opd_ops.recipe import Resources, Rollout, Workers
from pipelines import lake
from pipelines.runs.trajectories.run import TrainingRun
from pipelines.runs.trajectories.training import train
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

CALLS = Rollout(prompts=2, samples=2, max_new_tokens=6, batch=1)  # four sampling calls a step


def twin(store, tmp_path):
    """A copy of a store."""
    return Store(f"file://{shutil.copytree(store.path(''), tmp_path / 'twin')}")


def kept(found, name):
    """What a run leaves, except the proofs of weight pushes, which a run without actors has none of."""
    return {key: data for key, data in found.items() if f"mini.{name}/" in key and not key.startswith("lake/sync/")}


def test_rollout_and_teacher_actors_give_the_bytes_of_one_process(arm, seeded, contents, workers, tmp_path):
    alone = seeded("pre", "teacher")
    beside = twin(alone, tmp_path)
    recipe = arm("opd", rollout=CALLS)
    train(alone, recipe, 0, serial=True)
    crew = Resources(rollout=Workers(actors=3), teacher=Workers(actors=1))
    train(beside, arm("opd", rollout=CALLS, resources=crew), 0)
    assert kept(contents(beside), "opd") == kept(contents(alone), "opd")
    pushes = lake.scan("sync", beside.uri).collect()
    assert pushes["step"].to_list() == list(range(8))  # before every step, and before the last evaluation
    assert pushes["digest"].n_unique() > 1 and pushes["tokens"].drop_nulls().len() == 8
    assert pushes["maximum"].max() < 1e-5 and pushes["outside"].max() == 0
    assert lake.scan("sync", alone.uri).collect().is_empty()


def test_a_killed_rollout_actor_changes_nothing(arm, seeded, contents, workers, monkeypatch, tmp_path):
    from pipelines.runs.trajectories import engines

    alone = seeded("pre")
    beside = twin(alone, tmp_path)
    train(alone, arm("rlvr", rollout=CALLS), 0, serial=True)
    recipe = arm("rlvr", rollout=CALLS, resources=Resources(rollout=Workers(actors=2)))
    made = []
    kind = engines.RemoteEngine
    monkeypatch.setattr(engines, "RemoteEngine", lambda *a, **k: made.append(kind(*a, **k)) or made[-1])
    from pipelines.runs.resources.placement import reserve

    with reserve(recipe.resources) as placement:
        run = TrainingRun(beside, recipe, 0, {}, placement)
        run.work(3)
        os.kill(made[0].pids[0], signal.SIGKILL)
        while not run.work(5).finished:
            pass
    assert made[0].pool.replaced == 1
    assert kept(contents(beside), "rlvr") == kept(contents(alone), "rlvr")


def test_a_placement_that_cannot_be_met_says_what_is_missing(arm, seeded, contents, workers):
    store = seeded("pre")
    before = contents(store)
    greedy = Resources(gpus=1, rollout=Workers(actors=2, gpus=0.5))
    with pytest.raises(ValueError, match=r"needs 2 GPUs \(trainer 1, rollout 2 x 0\.5\) and the cluster has 0"):
        train(store, arm("rlvr", resources=greedy), 0)
    assert contents(store) == before


def test_another_objective_trains_on_the_same_rollouts_and_asks_the_teacher_again(arm, seeded):
    from opd_ops.recipe import FinalOf, Opd, Replay

    store = seeded("pre", "teacher")
    source = arm("opd")
    train(store, source, 0, serial=True)
    other = Opd(teacher=FinalOf(recipe="mini.teacher", seed=0), divergence="forward-kl")
    replay = Rollout(prompts=2, samples=2, max_new_tokens=6, source=Replay(recipe="mini.opd", seed=0))
    train(store, arm("opd", arm="again", objective=other, rollout=replay), 0, serial=True)
    rows = lake.scan("training", store.uri).filter(recipe="mini.again").collect()
    drawn = lake.scan("training", store.uri).filter(recipe=source.name).collect()
    assert rows["tokens"].to_list() == drawn["tokens"].to_list()
    assert rows["reward"].to_list() == drawn["reward"].to_list()
    assert Trajectory(store, "mini.again", 0).digest(7) != Trajectory(store, "mini.opd", 0).digest(7)
    assert store.find("scores") == []
