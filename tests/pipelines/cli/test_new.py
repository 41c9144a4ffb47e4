"""`opd study new`: the file that it writes, what it refuses, and that the study runs and gives verdicts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from opd_ops.recipe import Opd, Weights
from pipelines.cli.study_summary import summarise_study
from pipelines.runs.geometry.measuring import measure_run
from pipelines.runs.trajectories.training import train
from pipelines.runs.verdicts import comparing
from pipelines.store.objects import Store, default_uri
from pipelines.studies.catalog import find_study
from tests.own import make_data, make_model

WANTED = ["study", "new", "mine", "--model", "mymodel", "--data", "my.jsonl"]


@pytest.fixture
def mine(here):
    """The working directory with a model, mymodel, and data, my.jsonl."""
    make_model(here / "mymodel")
    make_data(here / "my.jsonl")
    return here


def complaints(file):
    """What ruff says of the file."""
    ruff, options = Path(sys.executable).with_name("ruff"), ["--isolated", "--line-length", "120", file]
    done = [
        subprocess.run([ruff, *command, *options], capture_output=True, text=True)
        for command in (["format", "--diff"], ["check"])
    ]
    return "".join(one.stdout for one in done if one.returncode)


def test_the_study_runs_as_it_is_written_and_gives_verdicts_and_tables(mine, opd, monkeypatch):
    code, told, err = opd(*WANTED, "--seeds", "2")
    assert code == 0 and "of 60 held out" in told and "opd study run ./mine.py" in told, err
    text = (mine / "mine.py").read_text()
    assert 30 <= len(text.splitlines()) <= 60 and text.count("#") >= 8
    assert complaints(mine / "mine.py") == ""
    short = text.replace("steps=40, snapshots=(1, 2, 4, 8, 15, 20, 30, 40)", "steps=6, snapshots=(2,)")
    (mine / "mine.py").write_text(short)
    study, store = find_study("./mine.py"), Store(default_uri())
    assert [recipe.name for recipe in study.arms()] == ["mine.sft", "mine.opd", "mine.rlvr"]
    monkeypatch.setenv("OPD_STORE", store.uri)
    monkeypatch.chdir("/")  # what the file names lies beside it
    for recipe in study.arms():
        for seed in study.seeds:
            train(store, recipe, seed, serial=True)
            measure_run(store, recipe, seed, study.measurement, serial=True)
    code, told, err = opd("report", "mine")
    assert code == 0 and "6 of 6 runs measured\npage: " in told, err
    norms = comparing.read_tables(store, study)["update_norm"].collect().filter(step=6)
    names = sorted(recipe.name for recipe in study.arms())
    assert sorted(norms.select("recipe", "seed").unique().rows()) == [(name, seed) for name in names for seed in (0, 1)]
    listed = opd("study", "verdicts", "mine")[1]
    assert "sft differs from opd: unchanged weights, bf16" in listed and "over 2 seeds" in listed
    assert "SFT" not in listed
    assert "takes 3 seeds and these arms have 2 seeds" in summarise_study(store, study, ["core"])


@pytest.mark.parametrize("arms", ["sft", "rlvr, opd"])
def test_arms_and_a_teacher_are_those_that_were_asked_for(mine, opd, arms):
    make_model(mine / "teacher", seed=1)
    teacher = ["--teacher", "teacher"] if "opd" in arms else []
    assert opd(*WANTED, "--arms", arms, "--seeds", "1", *teacher)[0] == 0
    assert complaints(mine / "mine.py") == ""
    study = find_study("./mine.py")
    assert [recipe.objective.kind for recipe in study.arms()] == arms.split(", ") and study.seeds == (0,)
    if teacher:
        assert study.arms()[1].objective == Opd(teacher=Weights(ref=str(mine / "teacher")))
        assert "No teacher" not in (mine / "mine.py").read_text()


def test_fields_of_another_name_are_named(mine, opd, refused):
    rows = [json.loads(line) for line in (mine / "my.jsonl").read_text().splitlines()]
    renamed = [{"q": row["question"], "a": f"{row['answer']} +"} for row in rows]
    (mine / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in renamed))
    assert "line 1 has no prompt in question, prompt, problem: name the field with" in refused(*WANTED)
    assert "--prompt x is no field of my.jsonl; it has: q, a" in refused(*WANTED, "--prompt", "x")
    assert opd(*WANTED, "--prompt", "q", "--answer", "a")[0] == 0
    options = find_study("./mine.py").arms()[0].task.options
    assert (options["prompt"], options["answer"], options["verifier"]) == ("{q}\nAnswer:", "a", "exact")


@pytest.mark.parametrize(
    "changes, reason",
    [
        (["--model", "none"], "--model none is no Hugging Face folder: config.json cannot be read: No such file"),
        (["--data", "none.jsonl"], "--data none.jsonl cannot be read: No such file or directory"),
        (["--arms", "sft,dpo"], "--arms names 'dpo'; known: sft, opd, rlvr"),
        (["--seeds", "0"], "--seeds 0 is no number of seeds from 1 up"),
        (["--teacher", "mymodel"], "--teacher is of the arm opd: add it to --arms"),
        (["--model", "short"], "tokens and a response of up to 2 do not fit the model's window of 9"),
        (["--data", "strange.jsonl"], "does not give the answer '1,000'"),
    ],
)
def test_what_cannot_become_a_study_is_one_line_and_writes_nothing(mine, refused, changes, reason):
    make_model(mine / "short", max_position_embeddings=9)
    rows = [{"question": f"what is {i} ?", "answer": "1,000"} for i in range(40)]
    (mine / "strange.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert reason in refused(*WANTED, "--arms", "sft,rlvr", *changes)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("tiny", "there is a study 'tiny' already"),
        ("a.b", "'a.b' cannot name a study"),
        ("../x", "'../x' cannot name a study"),
        ("there", "./there.py exists and is not overwritten"),
    ],
)
def test_names_that_are_taken_or_do_not_do_are_refused(mine, refused, name, reason):
    (mine / "there.py").write_text("kept")
    assert reason in refused("study", "new", name, *WANTED[3:])
    assert (mine / "there.py").read_text() == "kept"
