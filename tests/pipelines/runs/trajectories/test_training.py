"""A run ends with the same bytes however it got there: in this process or on Ray, in one go or killed and resumed."""

import dataclasses
import os
import signal
import weakref
from pathlib import Path

import pytest
import torch

from opd_ops.recipe import FinalOf, Gate, Horizon, Opd
from opd_ops.training.loop import Trainer
from pipelines import lake
from pipelines.runs.cluster.worker_failures import WorkerFailed
from pipelines.runs.resources.placement import Placement, Spot
from pipelines.runs.trajectories import training
from pipelines.runs.trajectories.failures import LearningFailed
from pipelines.runs.trajectories.run import TrainingRun
from pipelines.runs.trajectories.training import complete, parents, require_parents, train
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

PARENTS = {"pre": (), "teacher": ("pre",), "opd": ("pre", "teacher"), "rlvr": ("pre",)}


def finish(run):
    while not run.work(5).finished:
        pass


@pytest.mark.parametrize("name", ["opd", "rlvr"])
def test_ray_gives_the_bytes_of_the_serial_twin(name, arm, grown, seeded, contents, workers):
    store = seeded(*PARENTS[name])
    seen = []
    end = train(store, arm(name), 0, progress=seen.append)
    assert end == Trajectory(grown, f"mini.{name}", 0).end()
    # A slow step is reported again every second.
    assert list(dict.fromkeys((p.step, p.steps, p.finished) for p in seen if p.step)) == [(5, 7, False), (7, 7, True)]
    alike = lambda store: {key: data for key, data in contents(store).items() if f"mini.{name}/" in key}
    assert alike(store) == alike(grown)
    assert {key.split("/")[0] for key in alike(store)} == {"runs", "lake"}


@pytest.mark.parametrize("name", PARENTS)
def test_a_run_stopped_after_any_chunk_ends_the_same(name, arm, grown, seeded, contents):
    store = seeded(*PARENTS[name])
    recipe = arm(name)
    for steps in (1, 2, 1, 3):  # stops at steps 1, 3 (resumed at 0 and 2), 3 (resumed at 2) and 5
        assert not TrainingRun(store, recipe, 0, {}).work(steps).finished
    assert Trajectory(store, recipe.name, 0).load_resume()[0] == 4
    finish(TrainingRun(store, recipe, 0, {}))
    key = lambda found: {k: data for k, data in contents(found).items() if f"mini.{name}/" in k}
    assert key(store) == key(grown)


class Killed(BaseException):
    pass


def crashing(store, after):
    """A store whose change number `after` (from 0) is never made: the process is gone."""

    class Crashing(Store):
        def _count(self):
            self.__dict__["done"] = self.__dict__.get("done", -1) + 1
            if self.__dict__["done"] >= after:
                raise Killed

        def write(self, key, data):
            self._count()
            super().write(key, data)

        def create(self, key, *parts):
            self._count()
            super().create(key, *parts)

        def remove(self, prefix):
            self._count()
            super().remove(prefix)

    return Crashing(store.uri)


def test_a_crash_before_any_change_of_the_store_is_repaired_by_a_rerun(arm, tmp_path, contents, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    # A gate that opens at the limit takes every branch of the loop.
    gate = Gate(low=0.0, high=1.0, every=4)
    recipe = arm("pre", horizon=Horizon(steps=4, gate=gate, snapshots=(2,), resume_every=1))
    whole = Store(f"file://{tmp_path}/whole")
    train(whole, recipe, 0, serial=True)
    after = 0
    while True:
        store = Store(f"file://{tmp_path}/{after}")
        try:
            train(crashing(store, after), recipe, 0, serial=True)
        except Killed:
            swept = not complete(store, recipe, 0)  # past end.json only the resume state's sweep is left
            train(store, recipe, 0, serial=True)
        else:
            break
        kept = {key: data for key, data in contents(store).items() if swept or "/resume/" not in key}
        assert kept == contents(whole), after
        after += 1
    # run.json, 3 snapshots of 2 objects, 3 resume states of 2 and 2 prunings, 5 tables, end.json and its sweep.
    assert after == 1 + 3 * 2 + 3 * 2 + 2 + 5 + 2


class Fatal(Store):
    """A store that kills whoever commits the snapshot of step 3, while `mark` does not lie in it; or for ever."""

    def create(self, key, *parts):
        if key.endswith("step-00000003/manifest.json") and not self.exists("mark"):
            if self.exists("once"):
                self.write("mark", b"")
            os.kill(os.getpid(), signal.SIGKILL)
        super().create(key, *parts)


def test_another_actor_goes_on_where_one_was_killed(arm, grown, store, contents, workers):
    store.write("once", b"")
    train(Fatal(store.uri), arm("pre"), 0)
    key = lambda found: {k: data for k, data in contents(found).items() if "mini.pre/" in k}
    assert store.exists("mark") and key(store) == key(grown)


def test_actors_that_are_killed_at_one_step_are_an_error_and_a_rerun_ends_the_same(
    arm, grown, store, contents, workers
):
    with pytest.raises(
        WorkerFailed, match=r"^mini\.pre seed 0: its trainer died 4 times near step 0 \(.*\); give it more"
    ):
        train(Fatal(store.uri), arm("pre"), 0)
    trajectory = Trajectory(store, "mini.pre", 0)
    assert trajectory.steps() == [0, 1]
    assert store.exists(f"{trajectory.prefix}/step-00000003/master.safetensors")
    train(store, arm("pre"), 0)
    key = lambda found: {k: data for k, data in contents(found).items() if "mini.pre/" in k}
    assert key(store) == key(grown)


def test_an_actor_that_waits_for_its_next_run_holds_no_model(arm, store):
    host = training.Host()
    host.begin(store, arm("pre"), 0, {}, Placement(Spot()))
    held = weakref.ref(host.run.trainer)
    while not host.work(5).finished:
        pass
    assert held() is None


def test_tables_hold_every_step_and_evaluation(arm, grown):
    rows = lake.scan("training", grown.uri).filter(recipe="mini.pre").collect()
    assert rows["step"].to_list() == list(range(1, 8))
    assert set(rows["study"]) == {"mini"} and set(rows["seed"]) == {0}
    found = lake.scan("evaluation", grown.uri).filter(recipe="mini.pre").collect()
    assert found.select("step", "temperature", "n").rows() == [(0, 0.0, 4), (0, 1.0, 8), (7, 0.0, 4), (7, 1.0, 8)]
    timing = lake.scan("timing", grown.uri).filter(recipe="mini.pre").collect()
    step = {"forward", "loss", "backward", "update", "train"}
    assert set(timing["phase"]) == {"start", "evaluate", "snapshot"} | step
    assert (timing["wall_s"] > 0).all()


def test_a_chain_of_snapshots_names_its_parents(grown):
    trajectory = Trajectory(grown, "mini.opd", 0)
    assert trajectory.steps() == [0, 1, 3, 7]
    assert [trajectory.manifest(step)["parent"] for step in trajectory.steps()] == [None, 0, 1, 3]
    assert all(trajectory.verify(step) == [] for step in trajectory.steps())
    end = trajectory.end()
    assert (end["step"], end["snapshots"], end["digest"]) == (7, [0, 1, 3, 7], trajectory.digest(7))
    assert grown.list(f"{trajectory.prefix}/resume") == []


@pytest.mark.parametrize("name", ["teacher", "opd", "rlvr"])
def test_an_arm_starts_at_the_bf16_view_of_its_parents_end(name, grown):
    parent, child = Trajectory(grown, "mini.pre", 0), Trajectory(grown, f"mini.{name}", 0)
    ends, starts = parent.refs(7), child.refs(0)
    assert ends.keys() == starts.keys()
    for key, ref in starts.items():
        assert ref.dtype == "F32"
        assert torch.equal(ref.read(), ends[key].read().bfloat16().float())
    assert any(not torch.equal(ref.read(), starts[key].read()) for key, ref in ends.items())
    assert child.run()["inputs"]["start"] == parent.digest(7)


def test_a_start_without_a_seed_is_the_runs_own_seed(arm, store):
    pre = arm("pre", horizon=Horizon(steps=1))
    for seed in (0, 1):
        train(store, pre, seed, serial=True)
    child = arm("rlvr", start=FinalOf(recipe="mini.pre"))
    for seed in (0, 1):
        TrainingRun(store, child, seed, {})
        expected = Trajectory(store, "mini.pre", seed).digest(1)
        assert Trajectory(store, "mini.rlvr", seed).run()["inputs"]["start"] == expected


def test_different_seeds_differ_from_the_first_weight_on(arm, store):
    for seed in (0, 1):
        TrainingRun(store, arm("pre"), seed, {})
    assert Trajectory(store, "mini.pre", 0).digest(0) != Trajectory(store, "mini.pre", 1).digest(0)


@pytest.fixture
def accuracies(monkeypatch):
    """accuracies(values): what evaluations will find, by step."""

    def plan(values):
        real = Trainer.evaluate
        told = lambda self, *a: [row | {"accuracy": values[row["step"]]} for row in real(self, *a)]
        monkeypatch.setattr(Trainer, "evaluate", told)

    return plan


def gated(arm, every=2, steps=7):
    gate = Gate(low=0.5, high=0.8, every=every)
    return arm("pre", horizon=Horizon(steps=steps, gate=gate, snapshots=(), resume_every=2))


def test_a_gate_ends_the_run_at_the_first_evaluation_in_its_band(arm, store, accuracies):
    accuracies({0: 0.6, 2: 0.4, 4: 0.5, 6: 0.9})
    end = train(store, gated(arm), 0, serial=True)
    assert (end["step"], end["snapshots"]) == (4, [0, 4])
    rows = lake.scan("evaluation", store.uri).collect()
    # One sample at the gate's steps; the last of them gives way to the full evaluation.
    assert rows.select("step", "temperature", "n").rows() == [
        (0, 0.0, 4), (0, 1.0, 8), (2, 1.0, 4), (4, 0.0, 4), (4, 1.0, 8),
    ]  # fmt: skip


def test_a_gate_that_opens_at_the_limit_opens(arm, store, accuracies):
    accuracies({0: 0.0, 2: 0.1, 4: 0.2, 6: 0.3, 7: 0.7})
    assert train(store, gated(arm), 0, serial=True)["step"] == 7


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({2: 0.4, 4: 0.875}, r"^mini\.pre seed 0: accuracy 0\.875 at T=1 at step 4 is past the gate \[0\.5, 0\.8\]"),
        ({2: 0.1, 4: 0.2, 6: 0.25}, r"^mini\.pre seed 0: accuracy 0\.250 at T=1 at step 6, the limit, is below"),
    ],
)
def test_a_gate_missed_is_an_error_with_the_measured_accuracy(found, message, arm, store, accuracies):
    accuracies({0: 0.0} | found)
    recipe = gated(arm, steps=6)
    for _ in range(2):  # the rerun goes on from the last resume state, and fails alike
        with pytest.raises(LearningFailed, match=message):
            train(store, recipe, 0, serial=True)
        assert not complete(store, recipe, 0)
    assert lake.scan("training", store.uri).collect().is_empty()


def test_a_limit_between_two_readings_of_the_gate_is_a_reading(arm, store, accuracies):
    accuracies({0: 0.0, 3: 0.1, 6: 0.2, 7: 0.3})
    with pytest.raises(LearningFailed, match=r"0\.300 at T=1 at step 7, the limit, is below"):
        train(store, gated(arm, every=3), 0, serial=True)


@pytest.mark.parametrize("whole", [True, False])
def test_a_changed_recipe_is_refused_by_field_and_touches_nothing(whole, arm, store, seeded, contents):
    if whole:
        seeded("pre")
    else:
        TrainingRun(store, arm("pre"), 0, {}).work(3)
    before = contents(store)
    changed = arm("pre", optimizer=dataclasses.replace(arm("pre").optimizer, learning_rate=2e-3))
    message = r"runs/mini\.pre/seed-0 holds .* \(optimizer\.learning_rate: 0\.001 -> 0\.002\)"
    with pytest.raises(ValueError, match=message):
        train(store, changed, 0, serial=True)
    with pytest.raises(ValueError, match=message):
        TrainingRun(store, changed, 0, {})
    assert contents(store) == before


def test_resources_are_not_part_of_a_run(arm, seeded):
    recipe = arm("pre")
    assert complete(
        seeded("pre"), dataclasses.replace(recipe, resources=dataclasses.replace(recipe.resources, threads=8)), 0
    )


def test_another_parent_under_a_started_run_is_refused(arm, seeded, contents):
    store = seeded("pre", "teacher")
    TrainingRun(store, arm("opd"), 0, {}).work(3)
    before = contents(store)
    other = Opd(teacher=FinalOf(recipe="mini.pre", seed=0))
    inputs = Trajectory(store, "mini.opd", 0).run()["inputs"]
    facts = Trajectory(store, "mini.teacher", 0)
    store.write(f"{facts.prefix}/end.json", store.read("runs/mini.pre/seed-0/end.json"))
    with pytest.raises(ValueError, match=rf"made from other models \(teacher: \"{inputs['teacher']}\" -> "):
        TrainingRun(store, arm("opd"), 0, {})
    store.write(f"{facts.prefix}/end.json", before[f"{facts.prefix}/end.json"])
    with pytest.raises(ValueError, match=r"objective\.teacher\.recipe"):
        TrainingRun(store, arm("opd", objective=other), 0, {})
    assert contents(store) == before


def test_a_complete_run_is_left_alone(arm, seeded, contents, monkeypatch):
    store = seeded("pre")
    monkeypatch.setattr(training, "TrainingRun", None)
    times = lambda: {file: file.stat().st_mtime_ns for file in Path(store.path("")).rglob("*")}
    before, stamps = contents(store), times()
    assert train(store, arm("pre"), 0, serial=True)["step"] == 7
    assert (contents(store), times()) == (before, stamps)


def test_work_on_a_complete_run_does_nothing(arm, seeded, contents):
    store = seeded("pre")
    before = contents(store)
    run = TrainingRun(store, arm("pre"), 0, {})
    assert run.work(5).finished and run.trainer.step == 0
    assert contents(store) == before


@pytest.mark.parametrize("serial", [True, False])
def test_an_absent_parent_is_named(serial, arm, store, workers):
    with pytest.raises(ValueError, match=r"^runs/mini\.pre/seed-0 is not complete.*train it first$"):
        train(store, arm("rlvr"), 0, serial=serial)
    assert not Trajectory(store, "mini.rlvr", 0).is_registered()


def test_parents_are_the_runs_a_recipe_needs(arm):
    needed = lambda name, seed: parents(arm(name), seed)
    assert needed("pre", 0) == []
    assert needed("rlvr", 3) == [("mini.pre", 0)]
    assert needed("opd", 3) == [("mini.pre", 0), ("mini.teacher", 0)]
    assert parents(arm("rlvr", start=FinalOf(recipe="mini.pre")), 3) == [("mini.pre", 3)]


def test_a_parent_that_is_not_complete_is_asked_for(arm, seeded):
    store = seeded("pre")
    require_parents(store, arm("rlvr"), 0)
    with pytest.raises(
        ValueError, match=r"^mini\.opd seed 0 needs mini\.teacher seed 0, which is not complete: train it first$"
    ):
        require_parents(store, arm("opd"), 0)


def test_provenance_is_kept_from_the_first_start(arm, store):
    TrainingRun(store, arm("pre"), 0, {"host": "one"}).work(3)
    finish(TrainingRun(store, arm("pre"), 0, {"host": "two"}))
    assert Trajectory(store, "mini.pre", 0).run()["provenance"] == {"host": "one"}
