"""`opd rm` and `opd study run --replace`: they ask, they say what they do, and they never do it on their own."""

import pytest

from pipelines import cli, lake
from pipelines.cli import study as studies
from pipelines.store.objects import Store
from tests.pipelines.maintenance.planted import facts, plant


@pytest.fixture
def store(here):
    found = Store(f"file://{here}/.opd/store")
    plant(found)
    plant(found, "tiny.rlvr", 2, end=False, start=facts("tiny.rlvr", 2, kind="final", recipe="tiny.opd", seed=0))
    return found


def answering(monkeypatch, text):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: text)


def test_it_says_what_goes_and_how_it_comes_back_and_lists_it(store, capsys):
    before = store.find("")
    assert cli.main(["rm", "tiny.opd/0", "--yes"]) == 0
    said = capsys.readouterr().out
    count = len([key for key in before if "tiny.opd" in key])
    assert f"tiny.opd seed 0: {count} objects, " in said and "last written" in said
    assert "made from it: tiny.rlvr/2; they stay" in said
    assert f"{store.uri}/removed/tiny.opd/seed-0/1; bring it back: opd rm tiny.opd/0 --undo; delete it: opd rm" in said
    assert cli.main(["rm"]) == 0
    assert capsys.readouterr().out.startswith("tiny.opd/0 ")
    assert cli.main(["rm", "tiny.opd/0", "--undo"]) == 0
    assert store.find("") == before
    assert cli.main(["rm"]) == 0 and "nothing was moved aside" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["0", "00", "-1", "1.5", "newest", "", "9" * 5000])
@pytest.mark.parametrize("option", ["--undo", "--delete"])
def test_numbers_of_what_was_moved_aside_start_at_1(store, option, text, capsys):
    assert cli.main(["rm", "tiny.opd/0", "--yes"]) == 0
    before = store.find("")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["rm", "tiny.opd/0", option, text, "--yes"])
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith(f"error: argument {option}: {text!r} is no number of a run")
    assert "they start at 1; " in err and err.count("\n") == 1 and store.find("") == before
    assert cli.main(["rm", "tiny.opd/0", option, "2", "--yes"]) == 2
    assert capsys.readouterr().err.endswith("as number 2; it has: 1\n")
    assert cli.main(["rm", "tiny.opd/0", option, "01", "--yes"]) == 0
    assert store.find("removed") == []


@pytest.mark.parametrize("measured", [0, 1])
def test_a_report_is_made_again_by_a_command_that_has_a_measured_run(store, monkeypatch, capsys, measured):
    lake.write(store, "verdicts", [], study="tiny")
    monkeypatch.setattr(studies, "count_progress", lambda store, study: (measured, 9))
    assert cli.main(["rm", "tiny.opd/0", "--yes"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == "verdicts and report of tiny were made with it; " + (
        "make them again: opd report tiny"
        if measured
        else "no report can be made of the runs that are left, so both stay as they are until: opd study run tiny"
    )


@pytest.mark.parametrize("answer, goes", [("y", True), ("YES", True), ("", False), ("n", False), ("later", False)])
def test_it_asks(store, monkeypatch, answer, goes):
    answering(monkeypatch, answer)
    before = store.find("")
    assert cli.main(["rm", "tiny.opd"]) == (0 if goes else 1)
    assert (store.find("") != before) == goes
    if goes:
        assert cli.main(["rm", "tiny.opd/0", "--delete"]) == 0
        assert store.find("removed") == [] and cli.main(["verify"]) == 0


def test_replace_moves_the_runs_of_one_arm_aside_and_then_the_study_runs(store, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(studies, "_run_assets", lambda module, *rest: ran.append(module) or 0)
    run = ("study", "run", "tiny", "--recipe")
    assert cli.main([*run, "tiny.opd", "--replace", "opd"]) == 2
    assert "add --yes" in capsys.readouterr().err and ran == [] and store.exists("runs/tiny.opd/seed-0/run.json")
    assert cli.main([*run, "tiny.opd", "--replace", "opd", "--seed", "1", "--yes"]) == 0
    assert store.exists("runs/tiny.opd/seed-0/run.json")  # of another seed
    assert cli.main([*run, "tiny.opd", "--replace", "tiny.opd", "--yes"]) == 0
    assert store.find("runs/tiny.opd") == [] and len(ran) == 2
    answering(monkeypatch, "n")
    assert cli.main([*run, "tiny.rlvr", "--replace", "rlvr"]) == 1 and len(ran) == 2


def test_replace_moves_nothing_where_another_run_of_the_plan_is_refused(store, capsys):
    before = store.find("")
    assert cli.main(["study", "run", "tiny", "--replace", "opd", "--yes"]) == 2
    assert "runs/tiny.rlvr/seed-2 holds a run of another recipe" in capsys.readouterr().err
    assert store.find("") == before


def test_study_show_goes_on_past_a_run_of_another_recipe(store, capsys):
    assert cli.main(["study", "show", "tiny"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("opd ")]
    assert "1/3 another recipe" in line and "or move the stored run aside: opd rm tiny.opd/0\n" in out
    assert cli.main(["rm", "tiny.opd/0", "--yes"]) == 0
    capsys.readouterr()
    assert cli.main(["study", "show", "tiny"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert not [line for line in out if line.startswith("opd ") and "another recipe" in line]


def test_the_command_line_names_it(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "\n    rm " in capsys.readouterr().out
