"""The exit code of a launch and what it says: refusals before any work, failures, interruption, the end."""

import dataclasses
import logging
import signal
import warnings
from types import SimpleNamespace

import pytest

from assets import launch
from assets.launch import Launch
from assets.partitions import STUDIES
from opd_ops.recipe import AdamW
from pipelines.runs.resources.needs import declared

TINY, SMOLLM, QWEN = STUDIES["tiny"], STUDIES["smollm"], STUDIES["qwen3-8b"]
OPD = TINY.every_arm()[1]


# Refusals


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """told(*arguments, store=, dagster=): the one line on stderr of a launch that ends with 2 and writes nothing."""
    monkeypatch.setattr(Launch, "go", lambda self: pytest.fail("the launch began"))
    file = tmp_path / "file"
    file.write_text("kept")

    def run(*arguments, store="store", dagster="dagster"):
        monkeypatch.setenv("OPD_STORE", str(tmp_path / store))
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / dagster))
        level = logging.getLogger("dagster").level
        with warnings.catch_warnings():
            code = launch.main(list(arguments))
        logging.getLogger("dagster").setLevel(level)
        out, err = capsys.readouterr()
        assert (code, out) == (2, "")
        assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
        return err

    return run


def test_what_is_unknown_is_refused_with_what_is_known(told):
    assert "unknown study 'tyni'; known: tiny, smollm" in told("tyni")
    assert "has no suite 'extra'; it has: core" in told("tiny", "--suite", "extra")
    assert "has no recipe 'tiny.odp'; it has: tiny.sft, tiny.opd" in told("tiny", "--recipe", "tiny.odp")
    assert "has no seed 7; it has: 0, 1, 2" in told("tiny", "--seed", "0", "--seed", "7")


def test_places_that_cannot_be_written_are_refused_with_their_variables(told, tmp_path):
    err = told("tiny", store="file/store")
    assert f"{tmp_path}/file/store cannot be written" in err and "set OPD_STORE" in err
    err = told("tiny", dagster="file/dagster")
    assert f"DAGSTER_HOME {tmp_path}/file/dagster cannot be written" in err and "set it to" in err


def test_an_unreadable_dagster_yaml_is_one_line(tmp_path, monkeypatch, capsys):
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("storage: [oops")
    monkeypatch.setenv("OPD_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    assert launch.launch("tiny", ["core"], [], []) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"DAGSTER_HOME {home} cannot be opened" in err and "repair" in err


def test_absent_weights_are_refused_with_the_command_that_makes_them(told):
    err = told("smollm")
    assert SMOLLM.weights in err and "run `make weights` first" in err


def test_a_study_that_this_machine_cannot_run_is_refused_before_any_work(told, monkeypatch):
    monkeypatch.setattr("pipelines.runs.resources.needs.present", lambda: 0.0)
    err = told("qwen3-8b")
    most = max(map(declared, QWEN.every_arm()))
    assert f"qwen3-8b cannot run here: {most:g} GPUs are needed and 0 found" in err and "opd study show" in err
    # The anchor is trained first, so one arm alone needs its data too.
    assert "sft.jsonl" in told("qwen3-8b", "--recipe", "qwen3-8b.rlvr")


def test_what_is_trained_already_needs_nothing_of_this_machine(store, settle, ended_on, monkeypatch):
    monkeypatch.setattr("pipelines.runs.resources.needs.present", lambda: 0.0)
    for recipe in QWEN.every_arm():
        settle(store, recipe)
    done = ended_on(store, "qwen3-8b")
    assert (done.code, done.err) == (0, "")
    assert "\n0 runs to train, " in done.out and f" Dagster runs, in {store.uri}\n" in done.out


def test_what_is_left_to_do_is_told_before_it_is_done(store, ended_on):
    assert "\n14 runs to train, 12 to measure: about " in ended_on(store, "tiny").out


def test_a_stored_run_of_another_recipe_is_refused(told, tmp_path, settle, store, monkeypatch, capsys):
    settle(store, dataclasses.replace(OPD, optimizer=AdamW(learning_rate=0.5)))
    before = sorted(store.find(""))
    monkeypatch.setenv("OPD_STORE", store.uri)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    assert launch.launch("tiny", ["core"], [], []) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "holds a run of another recipe (optimizer.learning_rate: 0.5 -> 3e-05)" in err
    assert sorted(store.find("")) == before and not (tmp_path / "dagster").exists()


# Exit codes


@pytest.fixture
def ended_on(tmp_path, monkeypatch, capsys):
    """ended_on(store, study, suite, go=): exit code and output of a launch that executes `go(launch)` instead."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setattr(launch, "summarise_study", lambda *_: "summary")

    def run(store, study, suite="core", go=lambda made: None):
        monkeypatch.setenv("OPD_STORE", store.uri)
        monkeypatch.setattr(Launch, "go", go)
        code = launch.launch(study, [suite], [], [])
        return SimpleNamespace(code=code, **dict(zip(("out", "err"), capsys.readouterr(), strict=True)))

    return run


@pytest.fixture
def ended(whole, ended_on):
    """ended(go): the same of tiny over a whole store."""
    return lambda go: ended_on(whole, "tiny", go=go)


def interrupted(made):
    raise KeyboardInterrupt


def test_a_launch_ends_with_the_code_of_what_happened(ended):
    done = ended(lambda made: None)
    assert (done.code, done.err) == (0, "") and "\n19 Dagster runs, in " in done.out
    assert done.out.endswith("summary\n")
    failed = ended(lambda made: made.failures.append("tiny.base: no space left"))
    assert (failed.code, failed.err) == (1, "error: tiny.base: no space left\n") and "summary" not in failed.out
    odd = ended(lambda made: made.problems.append("q_proj is NaN"))
    assert (odd.code, odd.err) == (3, "error: q_proj is NaN\n") and odd.out.endswith("summary\n")
    stopped = ended(interrupted)
    assert stopped.code == 130 and stopped.err.count("\n") == 1 and "continues" in stopped.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_interrupts_the_launch_and_the_handler_before_it_returns(number):
    before = signal.getsignal(signal.SIGTERM)
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt), launch.interrupt_on_sigterm():
            signal.raise_signal(number)
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert signal.getsignal(signal.SIGTERM) == before
