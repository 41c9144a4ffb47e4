"""Studies from outside the package: files, modules and entry points, in every place that knows studies."""

import os
import subprocess
import sys

import pytest

from opd_ops import outside
from opd_ops.recipe import Weights
from pipelines.studies import catalog
from pipelines.studies.catalog import (
    find_recipe,
    find_study,
    list_studies,
    read_catalog,
    study_arg,
    suggest_command,
)

MINE = """
from dataclasses import replace
from pipelines.studies import tiny
from pipelines.studies.study import Study

def study():
    arm = replace(tiny.rlvr(), study="{name}", arm="grpo")
    return Study(name="{name}", title="A study", models=(), suites={{"core": (arm,)}}, seeds=(0, 5), anchor=None)
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write(file, text) in the working directory, where neither variable says anything."""
    monkeypatch.chdir(tmp_path)
    for variable in outside.VARIABLES:
        monkeypatch.setenv(variable, "")
    monkeypatch.setattr(sys, "path", list(sys.path))

    def save(name, text=""):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text or MINE.format(name="mine"))
        return tmp_path / name

    return save


@pytest.mark.parametrize("reference", ["./mine.py", "mine.py", "./mine.py:study", "{folder}/mine.py"])
def test_a_file_is_a_study_from_then_on_here_and_in_processes_started_from_here(write, reference):
    path = write("mine.py")
    study = find_study(reference.format(folder=path.parent))
    assert study.name == "mine" and list_studies()["mine"] is study is find_study("mine")
    assert find_recipe("mine.grpo") in study.arms()
    assert os.environ["OPD_STUDIES"] == f"{path}:study"
    find_study("./mine.py")
    assert os.environ["OPD_STUDIES"] == f"{path}:study"
    ask = "from pipelines.studies.catalog import list_studies; print(*list_studies())"
    child = subprocess.run([sys.executable, "-c", ask], cwd="/", capture_output=True, text=True, check=True)
    assert child.stdout.split()[-1] == "mine"


def test_another_function_a_module_and_the_variable_give_studies(write, monkeypatch):
    write("two.py", MINE.format(name="two").replace("def study", "def other"))
    write("package/mod.py", MINE.format(name="three"))
    monkeypatch.setenv("OPD_STUDIES", "./two.py:other, package.mod:study")
    assert list(list_studies())[-2:] == ["two", "three"]
    assert [study_arg(name) for name in ("tiny", "two", "three")] == [
        "tiny",
        "./two.py:other",
        "package.mod:study",
    ]
    assert suggest_command("two.grpo", 5) == "train it first: opd study run ./two.py:other --recipe two.grpo --seed 5"
    assert read_catalog().origins["two"] == "./two.py:other"


def test_a_file_runs_once_and_again_when_it_has_changed_and_its_neighbours_can_be_imported(write):
    write("neighbour_of_mine.py", "TITLE = 'from the neighbour'")
    text = "import neighbour_of_mine\nprint('run')\n" + MINE.format(name="mine").replace(
        '"A study"', "neighbour_of_mine.TITLE"
    )
    write("mine.py", text)
    first = find_study("./mine.py")
    assert first.title == "from the neighbour" and find_study("mine") is first
    write("mine.py", text.replace("neighbour_of_mine.TITLE", "'changed'"))
    assert find_study("mine").title == "changed"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("x = 1\n1 / 0\n", r"mine\.py line 2 raises ZeroDivisionError: division by zero$"),
        ("def study() return 3", r"mine\.py line 1 raises SyntaxError: expected ':'$"),
        ("import nothing_like_it", r"line 1 raises ModuleNotFoundError: No module named 'nothing_like_it'$"),
        ("def other(): ...", r"mine\.py defines no study; it defines: other$"),
        ("study = 3", r"mine\.py:study is int: write a function that returns a Study$"),
        ("def study(): return {}", r"mine\.py:study returns dict: return a Study of pipelines"),
        (
            MINE.format(name="mine").replace('study="mine"', "stuyd=1"),
            r"line 7 raises TypeError: .*unexpected keyword argument 'stuyd'$",
        ),
        (MINE.format(name="mine").replace('study="mine"', 'study="his"'), r"his\.grpo says study='his'.*'mine'.*one"),
        (MINE.format(name="a.b"), r"mine\.py:study: 'a\.b' cannot name a study: use .*, without a dot"),
        (MINE.format(name="mine").replace("(0, 5)", "(-1,)"), r"seeds=\(-1,\) are no numbers from 0 up"),
        (
            MINE.format(name="mine").replace("(arm,)", "(arm, replace(arm, objective=tiny.opd().objective))"),
            r"two different recipes are called mine\.grpo: give one of them another arm",
        ),
        (
            MINE.format(name="mine").replace("anchor=None", 'anchor="sft"'),
            r"anchor='sft' is none of its arms \(grpo\): name the one",
        ),
        (MINE.format(name="tiny"), r"two studies are called 'tiny', of this package and of \./mine\.py: rename one$"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(write, text, reason):
    write("mine.py", text)
    with pytest.raises(ValueError, match=reason) as caught:
        find_study("./mine.py")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "reference, reason",
    [
        ("./absent.py", r"absent\.py cannot be read: No such file or directory"),
        ("no.such.module:study", "there is no module no.such.module: install its package, or name a file"),
        ("./mine", r"'\./mine' names nothing to load: write \./FILE\.py, \./FILE\.py:NAME or PACKAGE"),
        ("mine", r"unknown study 'mine'; known: tiny, .*; there is a file \./mine\.py: name it so"),
    ],
)
def test_a_reference_to_nothing_is_one_line(write, reference, reason):
    write("mine.py")
    with pytest.raises(ValueError, match=reason):
        find_study(reference)


def test_entry_points_give_studies_and_a_broken_one_is_named_and_breaks_no_other(write, monkeypatch):
    write("packaged_study.py", MINE.format(name="packaged"))
    write("demo-1.0.dist-info/METADATA", "Name: demo\nVersion: 1.0\n")
    points = "[opd.studies]\npackaged = packaged_study:study\nbroken = packaged_study:nothing\n"
    entries = write("demo-1.0.dist-info/entry_points.txt", points)
    monkeypatch.syspath_prepend(entries.parent.parent)
    outside.entry_points.cache_clear()
    try:
        found = read_catalog()
        assert found.origins["packaged"] == "packaged_study:study (entry point packaged)"
        assert study_arg("packaged") == "packaged" and find_study("packaged").seeds == (0, 5)
        (line,) = found.broken
        assert line.startswith("entry point broken of opd.studies gives no study: packaged_study defines no nothing")
        assert find_study("tiny") is catalog._own_studies()["tiny"]
        with pytest.raises(ValueError, match=r"unknown study 'tyni'.*entry point broken"):
            find_study("tyni")
    finally:
        outside.entry_points.cache_clear()


def test_what_a_file_names_lies_beside_it_wherever_one_works(write, tmp_path, monkeypatch):
    write("there/data.jsonl", "{}")
    write("there/weights/config.json", "{}")
    write(
        "there/mine.py",
        MINE.format(name="mine")
        .replace("import replace", "import replace\nfrom opd_ops.recipe import Task, Weights")
        .replace(
            'arm="grpo"',
            'arm="grpo", start=Weights(ref="weights"), task=Task(name="jsonl", options={"path": "data.jsonl", '
            '"held_out": 4, "eos": "weights"})',
        ),
    )
    (recipe,) = find_study("there/mine.py").arms()
    assert recipe.start == Weights(ref=str(tmp_path / "there/weights"))
    options = {"path": str(tmp_path / "there/data.jsonl"), "held_out": 4, "eos": "weights"}
    assert recipe.task.options == options
    (tmp_path / "there/data.jsonl").unlink()
    write("there/mine.py", (tmp_path / "there/mine.py").read_text() + "\n")
    assert find_study("there/mine.py").arms()[0].task.options["path"] == "data.jsonl"


def test_every_command_takes_a_file_in_the_place_of_a_name(write, capsys, monkeypatch):
    from pipelines import cli

    write("mine.py")
    commands = [["study", "show"], ["study", "run"], ["study", "backfill"], ["report"], ["transfer"]]
    monkeypatch.setattr(os, "execv", lambda path, command: print("execute", *command[3:5]))
    for command in commands:
        code = cli.main([*command, "./mine.py"])
        out, err = capsys.readouterr()
        assert code == 0 or "unknown" not in err, command
        monkeypatch.setenv("OPD_STUDIES", "")
        assert "mine" in out + err, command
    monkeypatch.setenv("OPD_STUDIES", "./mine.py")
    assert cli.main(["study", "list"]) == 0
    assert "A study, from ./mine.py\n" in capsys.readouterr().out


def test_the_studies_of_this_package_have_no_fault():
    assert [fault for study in catalog._own_studies().values() for fault in catalog.find_faults(study)] == []
