"""Runs that are confined, that start at a snapshot, and that end at another run's norm; each stopped and resumed."""

import dataclasses
import json
import shutil
from typing import Any

import pytest
import torch

from opd_ops.recipe import (
    AdamW,
    Constraint,
    Gate,
    Horizon,
    NormOf,
    Random,
    Replay,
    Resources,
    Rollout,
    SnapshotOf,
    UpdateOf,
    WeightsOf,
)
from opd_ops.roles import PROJECTIONS, role
from pipelines import lake
from pipelines.runs.trajectories.failures import LearningFailed
from pipelines.runs.trajectories.run import TrainingRun
from pipelines.runs.trajectories.training import parents, train
from pipelines.store import checksum
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

BASIS = UpdateOf(recipe="mini.teacher", seed=0, step=3)
MODES = ("gradient", "update", "compressed")
STEADY = AdamW(learning_rate=1e-3, weight_decay=0.1, warmup=0)


def finish(run):
    while not run.work(5).finished:
        pass


def of(contents, store, name):
    return {key: data for key, data in contents(store).items() if f"mini.{name}/" in key}


def boxed(arm, mode="update", name="boxed", **changes):
    limits = {"basis": BASIS, "rank": 4, "side": "both", "mode": mode} | changes
    return arm("teacher", arm=name, constraint=Constraint(**limits))


@pytest.mark.parametrize("mode", MODES)
def test_a_confined_run_stopped_after_any_chunk_ends_the_same(mode, arm, seeded, contents, tmp_path):
    store = seeded("pre", "teacher")
    whole = Store(f"file://{shutil.copytree(store.path(''), tmp_path / 'whole')}")
    recipe = boxed(arm, mode)
    train(whole, recipe, 0, serial=True)
    for steps in (1, 2, 1, 3):  # stops at steps 1, 3 (resumed at 0 and 2), 3 (resumed at 2) and 5
        assert not TrainingRun(store, recipe, 0, {}).work(steps).finished
    assert Trajectory(store, recipe.name, 0).load_resume()[0] == 4
    finish(TrainingRun(store, recipe, 0, {}))
    assert of(contents, store, "boxed") == of(contents, whole, "boxed")
    rows = lake.scan("training", store.uri).filter(recipe=recipe.name).collect()
    assert rows["removed"].is_between(0, 1, closed="none").all()
    assert (rows["leaked"] > 0.05).all() if mode == "gradient" else (rows["leaked"] < 1e-6).all()
    assert (rows["leaked_step"] > 0.05).all() if mode == "gradient" else (rows["leaked_step"] < 1e-6).all()
    free = lake.scan("training", store.uri).filter(recipe="mini.teacher").collect()
    assert free.select("leaked", "leaked_step", "removed").null_count().row(0) == (7, 7, 7)


def test_the_update_of_a_confined_run_lies_in_the_early_subspace_of_its_source(arm, seeded):
    store = seeded("pre", "teacher")
    recipe = boxed(arm, side="right")
    train(store, recipe, 0, serial=True)
    run, source = Trajectory(store, recipe.name, 0), Trajectory(store, "mini.teacher", 0)
    assert run.run()["inputs"]["basis"] == {"start": source.digest(0), "step": source.digest(3)}
    outside = whole = 0.0
    for name, ref in run.refs(7).items():
        if role(name)[1] in PROJECTIONS:
            early = source.refs(3)[name].read().double() - source.refs(0)[name].read().double()
            v = torch.linalg.svd(early).Vh[:4].T
            update = ref.read().double() - run.refs(0)[name].read().double()
            outside += float((update - update @ v @ v.T).square().sum())
            whole += float(update.square().sum())
            assert torch.linalg.matrix_rank(update, rtol=1e-3) == 4
    # The masters are fp32: an ulp of a weight of 0.1 is 7e-9, and the update is a hundred thousand times that.
    assert 0 < outside**0.5 < 1e-4 * whole**0.5


def test_ray_gives_the_bytes_of_the_serial_twin(arm, seeded, contents, workers, tmp_path):
    store = seeded("pre", "teacher")
    twin = Store(f"file://{shutil.copytree(store.path(''), tmp_path / 'twin')}")
    recipe = dataclasses.replace(boxed(arm), start=SnapshotOf(recipe="mini.teacher", seed=0, step=3))
    train(store, recipe, 0)
    train(twin, recipe, 0, serial=True)
    assert of(contents, store, "boxed") == of(contents, twin, "boxed")


@pytest.mark.parametrize("mode", MODES)
def test_a_basis_whose_source_is_gone_is_that_of_the_resume_state(mode, arm, seeded, contents, tmp_path):
    store = seeded("pre", "teacher")
    whole = Store(f"file://{shutil.copytree(store.path(''), tmp_path / 'whole')}")
    recipe = boxed(arm, mode)
    train(whole, recipe, 0, serial=True)
    TrainingRun(store, recipe, 0, {}).work(2)
    store.remove("runs/mini.teacher")
    finish(TrainingRun(store, recipe, 0, {}))
    assert of(contents, store, "boxed") == of(contents, whole, "boxed")


def test_a_basis_of_another_source_under_a_started_run_is_refused(arm, seeded):
    store = seeded("pre", "teacher")
    recipe = boxed(arm)
    TrainingRun(store, recipe, 0, {}).work(1)  # no resume state yet
    source = Trajectory(store, "mini.teacher", 0)
    weights = {name: ref.read() * 2 for name, ref in source.refs(3).items()}
    store.remove(f"{source.prefix}/step-00000003")
    source.commit(3, weights, 1)
    with pytest.raises(ValueError, match=r"mini\.boxed/seed-0 was made from other models \(basis\.step: "):
        TrainingRun(store, recipe, 0, {})


def test_a_random_basis_has_no_source(arm, seeded):
    store = seeded("pre")
    recipe = boxed(arm, basis=Random(), others="frozen")
    TrainingRun(store, recipe, 0, {}).work(2)
    run = Trajectory(store, recipe.name, 0)
    assert "basis" not in run.run()["inputs"]
    assert {key for key in run.load_resume()[1] if key.startswith("basis/")}
    finish(TrainingRun(store, recipe, 0, {}))
    for name, ref in run.refs(7).items():
        still = torch.equal(ref.read(), run.refs(0)[name].read())
        assert still == (role(name)[1] not in PROJECTIONS), name


def test_parents_are_also_those_of_basis_norm_and_snapshot(arm):
    def needed(**changes):
        return parents(arm("rlvr", **changes), 3)

    began = ("mini.pre", 0)
    constraint = lambda basis: Constraint(basis=basis)
    assert needed(start=SnapshotOf(recipe="mini.x", step=2)) == [("mini.x", 3)]
    assert needed(start=SnapshotOf(recipe="mini.x", step=2, seed=1)) == [("mini.x", 1)]
    assert needed(constraint=constraint(UpdateOf(recipe="mini.x", step=2))) == [began, ("mini.x", 3)]
    assert needed(constraint=constraint(WeightsOf(recipe="mini.x", seed=1))) == [began, ("mini.x", 1)]
    assert needed(constraint=constraint(Random())) == [began]
    assert needed(horizon=Horizon(steps=3, until=NormOf(recipe="mini.x"))) == [began, ("mini.x", 3)]


def norm_of(trajectory, step):
    """||W_step - W_0||_F over the projections."""
    refs, start = trajectory.refs(step), trajectory.refs(0)
    moved = [refs[n].read().double() - start[n].read().double() for n in refs if role(n)[1] in PROJECTIONS]
    return float(torch.cat([d.flatten() for d in moved]).norm())


def matched(arm, steps=40, **changes):
    horizon = Horizon(
        steps=steps, snapshots=tuple(range(1, steps + 1)), resume_every=2, until=NormOf(recipe="mini.teacher")
    )
    return arm("opd", horizon=horizon, optimizer=AdamW(learning_rate=5e-4), **changes)


def test_a_run_ends_at_the_first_step_that_reaches_the_norm_of_another(arm, seeded, contents):
    store = seeded("pre", "teacher")
    end = train(store, matched(arm), 0, serial=True)
    run, source = Trajectory(store, "mini.opd", 0), Trajectory(store, "mini.teacher", 0)
    wanted = norm_of(source, 7)
    facts = run.run()["inputs"]["until"]
    assert facts == {"start": source.digest(0), "end": source.digest(7), "norm": pytest.approx(wanted, rel=1e-12)}
    assert 7 < end["step"] < 40  # half the rate, so later than the source, and before the limit
    assert norm_of(run, end["step"]) >= wanted > norm_of(run, end["step"] - 1)
    assert end["snapshots"] == list(range(end["step"] + 1))
    kept = of(contents, store, "opd")
    store.remove(run.prefix)
    for _ in range(3):
        TrainingRun(store, matched(arm), 0, {}).work(3)
    finish(TrainingRun(store, matched(arm), 0, {}))
    assert of(contents, store, "opd") == kept


def test_a_norm_that_is_never_reached_is_one_line_with_both(arm, seeded):
    store = seeded("pre", "teacher")
    message = r"^mini\.opd seed 0: the update's norm 0\.\d+ at step 3, the limit, is below the 0\.\d+ of mini\.teacher"
    for _ in range(2):  # the rerun goes on from the last resume state, and fails alike
        with pytest.raises(LearningFailed, match=message):
            train(store, matched(arm, steps=3), 0, serial=True)


def test_the_norm_of_a_run_that_is_not_complete_is_refused(arm, seeded):
    store = seeded("pre", "teacher")
    store.remove("runs/mini.teacher/seed-0/end.json")
    with pytest.raises(ValueError, match=r"^runs/mini\.teacher/seed-0 is not complete, .* ends at its norm: train it"):
        TrainingRun(store, matched(arm), 0, {})


def test_a_started_run_keeps_the_norm_it_read(arm, seeded):
    """The same snapshots, so that another last digit of the sum, as of another number of threads, is no other model."""
    store = seeded("pre", "teacher")
    TrainingRun(store, matched(arm), 0, {}).work(1)
    key = "runs/mini.opd/seed-0/run.json"
    facts = checksum.remove_checksum(store.read(key), key)
    facts["inputs"]["until"]["norm"] *= 1 + 1e-15
    store.write(key, json.dumps(checksum.add_checksum(facts)).encode())
    assert TrainingRun(store, matched(arm), 0, {}).reach.norm == facts["inputs"]["until"]["norm"]
    facts["inputs"]["until"]["end"] = "0123"
    store.write(key, json.dumps(checksum.add_checksum(facts)).encode())
    with pytest.raises(ValueError, match=r"was made from other models \(until\.end: "):
        TrainingRun(store, matched(arm), 0, {})


def kept(arm, steps=(3,), **changes):
    """A source with a constant rate, whose optimizer state of some steps is kept."""
    return arm("pre", arm="source", optimizer=STEADY, resources=Resources(keep_moments=steps), **changes)


def branch(arm, moments, step=3, **changes):
    start = SnapshotOf(recipe="mini.source", step=step, moments=moments)
    return arm("pre", arm="branch", start=start, optimizer=STEADY, horizon=Horizon(steps=4, snapshots=()), **changes)


def test_a_snapshot_with_its_moments_goes_on_as_its_source_did(arm, store, monkeypatch):
    """Bit for bit, once it is given the source's draws: its own are those of its steps, which count from 0 again."""
    from opd_ops.training import batches

    train(store, kept(arm), 0, serial=True)
    source = Trajectory(store, "mini.source", 0)
    assert store.list(source.prefix) == [
        "end.json", "moments", "run.json", *(f"step-{step:08d}" for step in (0, 1, 3, 7)),
    ]  # fmt: skip
    assert store.list(f"{source.prefix}/moments") == ["step-00000003"]
    drawn: Any = batches.demonstrations
    with monkeypatch.context() as patch:
        patch.setattr(batches, "demonstrations", lambda *a: drawn(*a[:-1], a[-1] + 3))
        train(store, branch(arm, "kept"), 0, serial=True)
        train(store, dataclasses.replace(branch(arm, "reset"), arm="anew"), 0, serial=True)
    run, anew = (Trajectory(store, f"mini.{name}", 0) for name in ("branch", "anew"))
    assert run.run()["inputs"]["start"] == run.digest(0) == anew.digest(0) == source.digest(3)
    assert run.digest(4) == source.digest(7) != anew.digest(4)


def test_a_branch_with_moments_stopped_after_any_chunk_ends_the_same(arm, store, contents):
    train(store, kept(arm), 0, serial=True)
    recipe = dataclasses.replace(branch(arm, "kept"), horizon=Horizon(steps=4, snapshots=(), resume_every=1))
    train(store, recipe, 0, serial=True)
    whole = of(contents, store, "branch")
    store.remove("runs/mini.branch")
    TrainingRun(store, recipe, 0, {}).work(2)
    store.remove("runs/mini.source/seed-0/moments")  # from here on its own state has them
    finish(TrainingRun(store, recipe, 0, {}))
    assert of(contents, store, "branch") == whole


def test_moments_that_were_not_kept_are_one_line_with_the_remedy(arm, store):
    train(store, kept(arm, ()), 0, serial=True)
    message = (
        r"^runs/mini\.source/seed-0 kept no optimizer state of step 3: train it with "
        r"resources\.keep_moments=\(3,\), from its start, or go on with start\.moments='reset'$"
    )
    with pytest.raises(ValueError, match=message):
        TrainingRun(store, branch(arm, "kept"), 0, {})
    assert not Trajectory(store, "mini.branch", 0).is_registered()


def test_moments_without_a_snapshot_beside_them_are_refused_before_any_work(arm, store):
    message = r"^mini\.source: resources\.keep_moments names step 2, .* those of steps 1, 3, 7 have one$"
    with pytest.raises(ValueError, match=message):
        TrainingRun(store, kept(arm, (2, 3)), 0, {})
    assert not Trajectory(store, "mini.source", 0).is_registered()


def test_moments_at_the_end_of_a_gated_run_are_kept(arm, store):
    gate = Gate(low=0.0, high=1.0, every=3)
    train(store, kept(arm, (3,), horizon=Horizon(steps=7, gate=gate, snapshots=(3,))), 0, serial=True)
    assert Trajectory(store, "mini.source", 0).load_moments(3)[0] == 3


def test_resources_that_keep_moments_change_nothing_else(arm, store, tmp_path, contents):
    other = Store(f"file://{tmp_path}/other")
    train(store, kept(arm), 0, serial=True)
    train(other, kept(arm, ()), 0, serial=True)
    ours = {key: data for key, data in contents(store).items() if "/moments/" not in key}
    assert ours == contents(other) and ours.keys() < contents(store).keys()


def test_a_replay_leaves_the_rollouts_where_they_were_drawn(arm, seeded, contents):
    store = seeded("pre", "teacher", "opd")
    shape = {"prompts": 2, "samples": 2, "max_new_tokens": 6}
    first, second = (
        arm("opd", arm=name, rollout=Rollout(**shape, source=Replay(recipe=source, seed=0)))
        for name, source in (("again", "mini.opd"), ("twice", "mini.again"))
    )
    for recipe in (first, second):
        train(store, recipe, 0, serial=True)
        assert not any("/rollouts/" in key for key in of(contents, store, recipe.arm))
    ends = [Trajectory(store, f"mini.{name}", 0).digest(7) for name in ("opd", "again", "twice")]
    assert ends[0] == ends[1] == ends[2]
