"""Runs with a guard: what is registered, what the rows say, and that a stopped run ends like one that was not."""

import pytest

from opd_ops.recipe import Guard, Reaction
from pipelines import lake
from pipelines.runs.geometry import monitor
from pipelines.runs.trajectories.run import TrainingRun
from pipelines.runs.trajectories.training import parents, require_parents
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

OUTSIDE = ((1e-9, 1e8, 1e9), (1e9, 1e8, 1e9))  # a band that no stable rank is in


def guarded(arm, action="isotropic-noise", rails=OUTSIDE, name="guarded", **changes):
    guard = Guard(quantity="stable_rank", every=1, **({"rails": rails} | changes))
    reaction = Reaction(guard=guard, action=action, strength=None if action == "none" else 1.0)
    return arm("teacher", arm=name, reaction=reaction)


def finish(run):
    while not run.work(2).finished:
        pass


def of(contents, store, name):
    return {key: data for key, data in contents(store).items() if f"mini.{name}/" in key and "run.json" not in key}


def test_a_guarded_run_registers_its_rails_and_tells_of_its_trip(arm, seeded):
    store = seeded("pre")
    recipe = guarded(arm)
    finish(TrainingRun(store, recipe, 0, {}))
    trajectory = Trajectory(store, recipe.name, 0)
    assert trajectory.run()["inputs"]["rails"] == [list(rail) for rail in OUTSIDE]
    rows = lake.read_partition(store, "training", recipe=recipe.name, seed=0).sort("step")
    assert rows["tripped"].to_list()[:3] == [None, 2, 2]
    assert rows["noise"][:2].null_count() == 2 and rows["noise"][2] == pytest.approx(1.0, rel=1e-2)


def test_a_sham_ends_like_the_run_without_a_guard(arm, seeded):
    store = seeded("pre")
    finish(TrainingRun(store, arm("teacher", arm="plain"), 0, {}))
    finish(TrainingRun(store, guarded(arm, "none", name="sham"), 0, {}))
    digests = [Trajectory(store, f"mini.{name}", 0).end()["digest"] for name in ("plain", "sham")]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_stopped_anywhere_it_ends_with_the_same_bytes(arm, seeded, contents, tmp_path, stop):
    store, recipe = seeded("pre"), guarded(arm)
    copied = Store(f"file://{tmp_path}/again")
    for key, data in contents(store).items():
        copied.write(key, data)
    finish(TrainingRun(store, recipe, 0, {}))
    stopped = TrainingRun(copied, recipe, 0, {})
    stopped.work(stop)
    stopped._save_resume(stop)
    finish(TrainingRun(copied, recipe, 0, {}))
    whole, again = of(contents, store, "guarded"), of(contents, copied, "guarded")
    weights = [key for key in whole if key.endswith(".safetensors")]
    assert weights and all(whole[key] == again[key] for key in weights)
    rows = [lake.read_partition(one, "training", recipe=recipe.name, seed=0) for one in (store, copied)]
    assert rows[0].equals(rows[1])


def test_a_reference_is_waited_for_with_all_its_seeds(arm, seeded):
    store = seeded("pre")
    recipe = guarded(arm, rails=None, reference="mini.sft", seeds=(0, 1))
    assert {("mini.sft", 0), ("mini.sft", 1)} <= set(parents(recipe, 0))
    with pytest.raises(ValueError, match=r"needs mini\.sft seed \d, which is not complete"):
        require_parents(store, recipe, 0)
    with pytest.raises(ValueError, match=r"mini\.guarded is guarded by mini\.sft seed 0, which is not measured"):
        monitor.resolve_guard(store, recipe.reaction.guard, recipe.name, 0)
    with pytest.raises(ValueError, match=r"recipe mini\.guarded is refused: a run cannot wait for the other seeds"):
        guarded(arm, rails=None, reference="mini.guarded")
