"""A run moved aside is gone from everything that reads a store, and comes back as it was."""

import json
from dataclasses import replace

import pytest

from opd_ops.recipe import AdamW, Horizon
from pipelines import lake
from pipelines.maintenance.audit import audit
from pipelines.maintenance.inventory import classify
from pipelines.maintenance.sweeping import list_deletable
from pipelines.runs import set_aside
from pipelines.runs.provenance import provenance
from pipelines.runs.trajectories.run import TrainingRun
from pipelines.runs.trajectories.training import complete, train
from pipelines.store.objects import Store
from pipelines.store.trajectory import Lost, Trajectory
from tests.pipelines.maintenance.planted import plant

NAME, RUN = "tiny.opd", "runs/tiny.opd/seed-0"
SHORT = Horizon(steps=4, snapshots=(2,), resume_every=1)


def contents(store):
    return {key: store.read(key) for key in store.find("")}


def test_a_run_is_gone_from_every_reader_and_comes_back_to_the_byte(any_store):
    store = any_store
    plant(store)
    plant(store, "tiny.rlvr", 2, end=False)
    before = contents(store)
    moved = set_aside.move_aside(store, NAME, 0)
    assert moved.prefix == "removed/tiny.opd/seed-0/1" and moved.state() == "whole"
    assert {key for key in store.find("") if "tiny.opd" in key} == set(store.find("removed"))
    assert store.list("runs") == ["tiny.rlvr"]
    assert lake.scan("training", store.uri).select("recipe").collect()["recipe"].unique().to_list() == ["tiny.rlvr"]
    assert [str(one) for one in audit(store).findings] == []
    assert all(classify(key).kind == "removed" for key in store.find("removed"))
    assert list_deletable(store, age=0.0, resume="all", now=float("inf")) == [
        one for one in list_deletable(store, age=0.0, resume="all", now=float("inf")) if "removed" not in one.keys[0]
    ]
    set_aside.bring_back(store, NAME, 0)
    assert contents(store) == before


def test_two_of_one_name_are_kept_apart_and_deleted_one_by_one(store):
    plant(store)
    first = set_aside.move_aside(store, NAME, 0)
    plant(store, steps=(0, 1))
    second = set_aside.move_aside(store, NAME, 0)
    assert [one.number for one in set_aside.list_aside(store)] == [1, 2]
    assert set_aside.find_aside(store, NAME, 0) == second and set_aside.find_aside(store, NAME, 0, 1) == first
    set_aside.delete(second)
    assert set_aside.list_aside(store) == [first]
    set_aside.bring_back(store, NAME, 0, 1)
    assert Trajectory(store, NAME, 0).steps() == [0, 1, 3, 7]


class Stopped(Exception):
    """As a kill would."""


def stopping(monkeypatch, count):
    """The `count`-th object that is moved is the last one."""
    move, moved = Store.move, []

    def until(self, source, target):
        if len(moved) == count:
            raise Stopped
        moved.append(source)
        move(self, source, target)

    return monkeypatch.setattr(Store, "move", until)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 13])
def test_a_move_that_was_stopped_is_finished_by_the_next_one_or_the_next_start(store, monkeypatch, count):
    plant(store)
    before = contents(store)
    for go_on in (lambda: set_aside.move_aside(store, NAME, 0), lambda: set_aside.settle(store, NAME, 0)):
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            stopping(patch, count)
            set_aside.move_aside(store, NAME, 0)
        go_on()
        if count:
            assert set_aside.list_aside(store)[-1].state() == "whole" and set_aside.run_keys(store, NAME, 0) == []
            set_aside.bring_back(store, NAME, 0)
        elif set_aside.is_registered(store, NAME, 0):
            assert contents(store) == before  # nothing had begun
        else:
            set_aside.bring_back(store, NAME, 0)
        assert contents(store) == before


@pytest.mark.parametrize("count", [0, 4, 12])
def test_a_return_that_was_stopped_is_finished_or_undone(store, monkeypatch, count):
    plant(store)
    before = contents(store)
    for ending in ("finished", "undone"):
        set_aside.move_aside(store, NAME, 0)
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            stopping(patch, count)
            set_aside.bring_back(store, NAME, 0)
        assert not Trajectory(store, NAME, 0).is_registered()
        if ending == "undone":
            set_aside.settle(store, NAME, 0)
            assert set_aside.list_aside(store)[-1].state() == "whole" and set_aside.run_keys(store, NAME, 0) == []
        set_aside.bring_back(store, NAME, 0)
        assert contents(store) == before


@pytest.mark.parametrize("act", ["move", "return"])
def test_a_stopped_move_is_all_that_verify_names_and_gc_leaves_its_run_alone(store, monkeypatch, act):
    """Part of a run has lost its run.json and manifests, and is no orphan: either command goes on."""
    plant(store)
    plant(store, "tiny.rlvr", 2, end=False)
    before = contents(store)
    for count in (1, 2, 5, 12):
        if act == "return":
            set_aside.move_aside(store, NAME, 0)
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            stopping(patch, count)
            (set_aside.move_aside if act == "move" else set_aside.bring_back)(store, NAME, 0)
        said = (
            "removed/tiny.opd/seed-0/1 holds a part of tiny.opd/0: its move was stopped: `opd rm tiny.opd/0` finishes "
            "it, `opd rm tiny.opd/0 --undo` takes it back"
        )
        assert [str(one) for one in audit(store).findings] == [said]
        assert [str(one) for one in audit(store, runs=[(NAME, 0)]).findings] == [said]
        assert audit(store, runs=[("tiny.rlvr", 2)]).findings == ()
        assert [
            one for one in list_deletable(store, age=0.0, resume="all", now=float("inf")) if NAME in one.keys[0]
        ] == []
        set_aside.bring_back(store, NAME, 0)
        assert contents(store) == before and audit(store).findings == ()


def test_a_return_goes_on_from_a_run_json_that_lies_in_both_places(store):
    """As a copy leaves it that was stopped before the deletion; another run.json there is another run."""
    plant(store)
    before = contents(store)
    moved = set_aside.move_aside(store, NAME, 0)
    store.remove(moved.mark)
    store.write(f"{RUN}/run.json", store.read(f"{moved.prefix}/{RUN}/run.json"))
    set_aside.bring_back(store, NAME, 0)
    assert contents(store) == before
    moved = set_aside.move_aside(store, NAME, 0)
    store.remove(moved.mark)
    store.write(f"{RUN}/run.json", b"{}")
    with pytest.raises(ValueError, match=r"holds another run tiny\.opd seed 0 by now"):
        set_aside.bring_back(store, NAME, 0)


def test_what_was_deleted_in_part_is_no_stopped_move_and_can_be_deleted(store, monkeypatch):
    plant(store)
    moved = set_aside.move_aside(store, NAME, 0)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        remove, removed = Store.remove, []

        def until(self, prefix):
            if len(removed) == 3:
                raise Stopped
            removed.append(prefix)
            remove(self, prefix)

        patch.setattr(Store, "remove", until)
        set_aside.delete(moved)
    with pytest.raises(ValueError, match=r"is deleted in part: opd rm tiny\.opd/0 --delete 1$"):
        set_aside.bring_back(store, NAME, 0)
    before = contents(store)
    set_aside.settle(store, NAME, 0)
    assert contents(store) == before
    set_aside.delete(moved)
    assert contents(store) == {}


def test_what_is_left_of_a_run_that_lost_its_run_json_can_be_moved_aside(store):
    plant(store)
    store.remove(f"{RUN}/run.json")
    before = contents(store)
    assert set_aside.move_aside(store, NAME, 0).state() == "whole" and set_aside.run_keys(store, NAME, 0) == []
    set_aside.bring_back(store, NAME, 0)
    assert contents(store) == before


@pytest.mark.parametrize("moment", ["between two steps", "while a snapshot is written", "while a state is written"])
def test_a_run_that_is_being_trained_is_not_torn(arm, store, monkeypatch, moment):
    """It ends in one line, nothing of it stays behind, and brought back it goes on to the same end."""
    recipe = arm("pre", horizon=SHORT)
    whole = Store(f"{store.uri}-whole")
    train(whole, recipe, 0, serial=True)
    run = TrainingRun(store, recipe, 0, provenance())
    run.work(1)
    if moment == "between two steps":
        set_aside.move_aside(store, recipe.name, 0)
    else:
        name = "commit" if "snapshot" in moment else "save_resume"
        write = getattr(Trajectory, name)

        def interrupted(self, *rest):
            if self.is_registered():
                set_aside.move_aside(store, recipe.name, 0)
            return write(self, *rest)

        monkeypatch.setattr(Trajectory, name, interrupted)
    with pytest.raises(Lost, match=r"^runs/mini\.pre/seed-0 was moved aside while it was being trained here") as caught:
        run.work(4)
    assert "\n" not in str(caught.value)
    assert set_aside.run_keys(store, recipe.name, 0) == []
    monkeypatch.undo()
    set_aside.bring_back(store, recipe.name, 0)
    train(store, recipe, 0, serial=True)
    assert Trajectory(store, recipe.name, 0).end()["digest"] == Trajectory(whole, recipe.name, 0).end()["digest"]
    assert [str(one) for one in audit(store).findings] == []


def test_a_process_whose_run_gave_way_to_another_recipe_ends_and_leaves_the_other_alone(arm, store):
    recipe, changed = (arm("pre", horizon=SHORT, optimizer=AdamW(learning_rate=rate)) for rate in (1e-3, 2e-3))
    run = TrainingRun(store, recipe, 0, {})
    run.work(1)
    other = TrainingRun(store, changed, 0, {})
    with pytest.raises(Lost, match="gave way to a run of another recipe"):
        run.work(4)
    assert other.work(4).finished and complete(store, changed, 0)
    assert [str(one) for one in audit(store).findings] == []


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_without_a_snapshot_past_step_0_gives_way_to_a_changed_recipe(arm, store, steps, caplog):
    """Deleted where it was only begun, and moved aside where it had a resume state."""
    recipe, changed = (arm("pre", horizon=SHORT, optimizer=AdamW(learning_rate=rate)) for rate in (1e-3, 2e-3))
    run = TrainingRun(store, recipe, 0, {})
    if steps:
        run.work(steps)
    assert not complete(store, changed, 0)
    train(store, changed, 0, serial=True)
    assert complete(store, changed, 0)
    assert [one.number for one in set_aside.list_aside(store)] == [1] * steps
    (line,) = [line for line in caplog.messages if line.startswith("mini.pre seed 0: the stored run is another one")]
    assert ("opd rm mini.pre/0 --undo 1" in line) == bool(steps)


def test_a_run_with_a_snapshot_never_gives_way_on_its_own(arm, store):
    recipe = arm("pre", horizon=SHORT)
    TrainingRun(store, recipe, 0, {}).work(2)
    before = contents(store)
    changed = replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=5e-3))
    for attempt in (lambda: complete(store, changed, 0), lambda: train(store, changed, 0, serial=True)):
        with pytest.raises(ValueError, match=r"optimizer\.learning_rate: 0\.001 -> 0\.005\); .*: opd rm mini\.pre/0$"):
            attempt()
    assert contents(store) == before


def test_a_start_from_another_end_of_its_parent_gives_way(arm, seeded):
    """The teacher was made again with other weights: what was only begun with the old ones is begun with the new."""
    store = seeded("pre", "teacher")
    TrainingRun(store, arm("opd", horizon=SHORT), 0, {})
    set_aside.move_aside(store, "mini.teacher", 0)
    train(store, arm("teacher", optimizer=AdamW(learning_rate=5e-3)), 0, serial=True)
    train(store, arm("opd", horizon=SHORT), 0, serial=True)
    teacher = Trajectory(store, "mini.teacher", 0).end()["digest"]
    assert Trajectory(store, "mini.opd", 0).run()["inputs"]["teacher"] == teacher


def test_the_runs_that_were_made_from_one_are_named(grown, store):
    assert set_aside.list_children(grown, "mini.pre", 0) == ["mini.opd/0", "mini.rlvr/0", "mini.teacher/0"]
    assert set_aside.list_children(grown, "mini.teacher", 0) == ["mini.opd/0"]
    assert set_aside.list_children(grown, "mini.pre", 1) == set_aside.list_children(grown, "mini.opd", 0) == []
    identities = {
        "a.replay": {"rollout": {"source": {"kind": "replay", "recipe": "p", "seed": None}}},
        "a.guarded": {"reaction": {"guard": {"reference": "p", "seeds": [2, 3]}}},
        "a.other": {"start": {"recipe": "p", "seed": 1}},
    }
    for name, identity in identities.items():
        Trajectory(store, name, 3).register({"identity": identity, "fingerprint": "", "inputs": {}, "model": {}})
    assert set_aside.list_children(store, "p", 3) == ["a.guarded/3", "a.replay/3"]
    assert set_aside.list_children(store, "p", 1) == ["a.other/3"]


@pytest.mark.parametrize(
    "generations", [["import.json"], ["import-00000003.json"], ["import.json", "import-00000001.json"]]
)
def test_an_import_is_moved_with_its_watch_and_page_and_comes_back(store, generations):
    plant(store, "external.mine", 0, end=False)
    folder = "runs/external.mine/seed-0"
    for name in generations:
        store.write(f"{folder}/{name}", name.encode())
    store.remove(f"{folder}/run.json")
    store.write("watched/mine.json", json.dumps({}).encode())
    store.write("reports/external.mine/index.html", b"<html>")
    store.write("reports/external.mine2/index.html", b"<html>")
    before = {key: store.read(key) for key in store.find("")}
    moved = set_aside.move_aside(store, "external.mine", 0)
    assert store.find("runs") == store.find("watched") == store.find("lake") == []
    assert store.find("reports") == ["reports/external.mine2/index.html"]
    assert all(classify(key).kind == "removed" for key in store.find("removed"))
    assert moved.state() == "whole" and not set_aside.is_registered(store, "external.mine", 0)
    set_aside.bring_back(store, "external.mine", 0)
    assert {key: store.read(key) for key in store.find("")} == before
