"""A run is of the weights and data that it was made from, wherever they lie."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from opd_ops.recipe import FinalOf, Opd, Sft, Task, Weights
from pipelines.runs.identity import require_same_contents
from pipelines.runs.trajectories import starts
from pipelines.runs.trajectories.run import TrainingRun
from pipelines.runs.trajectories.training import complete, train
from pipelines.store.trajectory import OtherInputs, Trajectory
from tests.own import make_data, make_model


@pytest.fixture
def at(arm, tmp_path):
    """at(home, **changes): the recipe whose weights, teacher and data lie in the folder `home`, made once."""

    def recipe(home, **changes):
        folder = tmp_path / home
        if not folder.exists():
            folder.mkdir()
            make_model(folder / "model")
            make_model(folder / "teacher", seed=1)
            make_data(folder / "data.jsonl")
        fields = {
            "start": Weights(ref=str(folder / "model")),
            "objective": Opd(teacher=Weights(ref=str(folder / "teacher"))),
            "task": Task(name="jsonl", options={"path": str(folder / "data.jsonl"), "verifier": "exact"}),
        }
        return arm("opd", **(fields | changes))

    return recipe


def test_a_run_begun_in_one_home_is_continued_and_found_from_another_byte_for_byte(at, store, tmp_path, contents):
    TrainingRun(store, at("a"), 0, {}).work(3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    assert not complete(store, at("b"), 0)
    end = train(store, at("b"), 0, serial=True)
    assert json.loads(store.read("runs/mini.opd/seed-0/run.json"))["identity"]["start"]["ref"] == f"{tmp_path}/a/model"
    assert complete(store, at("b"), 0)
    other = type(store)(f"file://{tmp_path}/other")
    assert train(other, at("b"), 0, serial=True)["digest"] == end["digest"]
    found, alone = contents(store), contents(other)
    assert found.keys() == alone.keys()
    assert [key for key in found if found[key] != alone[key]] == ["runs/mini.opd/seed-0/run.json"]


def change(at, home, what):
    at(home)
    if what == "data":
        folder = at(home).task.options["path"]
        with open(folder, "a") as file:
            file.write(json.dumps({"question": "what is 9 + 9 ?", "answer": "8"}) + "\n")
    else:
        ref = at(home).start.ref if what == "model" else at(home).objective.teacher.ref
        make_model(Path(ref), seed=7)


@pytest.mark.parametrize("what, field", [("model", "start"), ("teacher", "teacher"), ("data", r"task\.data")])
@pytest.mark.parametrize("finished", [False, True])
def test_other_contents_at_the_same_or_another_place_are_refused_in_one_line(at, store, what, field, finished):
    if finished:
        train(store, at("a"), 0, serial=True)
    else:
        TrainingRun(store, at("a"), 0, {}).work(3)
    change(at, "b", what)
    line = rf"runs/mini\.opd/seed-0 was made from other (models|data) \({field}: .*opd rm mini\.opd/0"
    with pytest.raises(OtherInputs, match=line) as caught:
        complete(store, at("b"), 0)
    assert "\n" not in str(caught.value)
    change(at, "a", what)
    with pytest.raises(OtherInputs, match=line):
        require_same_contents(store, at("a"), 0)
    if not finished:
        with pytest.raises(OtherInputs, match=line):
            TrainingRun(store, at("a"), 0, {})


def test_any_other_difference_is_refused_as_before(at, store):
    train(store, at("a"), 0, serial=True)
    changed = dataclasses.replace(at("b"), objective=Sft(stream="clean"))
    with pytest.raises(ValueError, match=r"holds a run of another recipe \(objective\."):
        complete(store, changed, 0)
    task = Task(name="jsonl", options=at("b").task.options | {"held_out": 4})
    with pytest.raises(ValueError, match=r"holds a run of another recipe \(task\.options\.held_out: null -> 4"):
        complete(store, at("b", task=task), 0)


def test_what_is_gone_is_not_compared_where_a_run_is_complete(at, store, tmp_path):
    recipe = at("a")
    train(store, recipe, 0, serial=True)
    shutil.rmtree(tmp_path / "a")
    require_same_contents(store, recipe, 0)
    assert complete(store, dataclasses.replace(recipe, start=Weights(ref="elsewhere")), 0)


def test_a_child_finds_the_tokenizer_where_its_study_says_that_it_lies(at, store, tmp_path, monkeypatch):
    train(store, at("a", objective=Sft(stream="clean"), arm="sft"), 0, serial=True)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    parent = at("b", objective=Sft(stream="clean"), arm="sft")
    monkeypatch.setattr(starts, "find_recipe", {parent.name: parent}.__getitem__)
    child = at("b", start=FinalOf(recipe="mini.sft", seed=0), objective=Sft(stream="clean"), arm="child")
    train(store, child, 0, serial=True)
    assert Trajectory(store, "mini.child", 0).end()["step"] == 7
    assert starts.tokenizer_folder(store, child.start, 0) == str(tmp_path / "b/model")
