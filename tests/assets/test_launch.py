"""The plan of a launch, what it reuses, its account, and everything it refuses before any work."""

import dataclasses
import json
import logging
import os
import queue
import signal
import warnings
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from assets import instance as home_of
from assets import lane, launch
from assets.launch import Account, Item, Launch, plan
from assets.partitions import STUDIES, anchor_key, run_key
from opd_ops.recipe import AdamW
from pipelines import lake
from pipelines.runs import comparing
from pipelines.runs.measuring import measure_run
from pipelines.runs.needs import declared

TINY, SMOLLM, QWEN = STUDIES["tiny"], STUDIES["smollm"], STUDIES["qwen3-8b"]
SFT, OPD = TINY.every_arm()[:2]


def everything(store, study=TINY):
    return plan(store, study, list(study.arms()), list(study.seeds))


def named(items):
    return {item.name: item for item in items}


def known(instance, item):
    """Dagster knows the item's partition."""
    event = dg.AssetMaterialization(item.asset, partition=item.partition)
    instance.report_runless_asset_event(event)


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_an_item_needs_earlier_items_only_and_the_comparison_all(study, store):
    items = everything(store, study)
    for index, item in enumerate(items):
        assert set(item.needs) <= {earlier.name for earlier in items[:index]}
    assert set(items[-1].needs) == {item.name for item in items[:-1]}
    assert len(named(items)) == len(items)


def test_the_plan_is_models_anchors_runs_and_the_comparison(store):
    items = everything(store)
    grid = [(recipe.name, seed) for recipe in TINY.arms() for seed in TINY.seeds]
    assert [item.job for item in items] == 2 * ["models"] + 3 * ["anchors"] + len(grid) * ["runs"] + ["comparison"]
    assert {item.partition for item in items if item.job == "models"} == {"tiny"}
    assert [item.assets for item in items[:2]] == [("base",), ("teacher",)]
    assert {i.partition for i in items if i.job == "anchors"} == {anchor_key("tiny", seed) for seed in TINY.seeds}
    assert {i.partition for i in items if i.job == "runs"} == {run_key(*run) for run in grid}


def test_a_run_waits_for_the_models_and_the_anchor_of_its_seed(store):
    items = named(everything(store))
    assert items["tiny.opd, seed 1"].needs == ("tiny anchor, seed 1", "tiny.teacher")
    assert items["tiny.rlvr, seed 2"].needs == ("tiny anchor, seed 2",)
    assert items["tiny.teacher"].needs == items["tiny anchor, seed 0"].needs == ("tiny.base",)
    assert items["tiny.sft, seed 0"].needs == ("tiny.base", "tiny anchor, seed 0")


def test_every_run_is_trained_once_and_measured_once(store):
    items = everything(store)
    trained = [(item.run[0].name, item.run[1]) for item in items if item.trains]
    assert len(set(trained)) == len(trained) == 2 + 12
    assert not named(items)["tiny.sft, seed 0"].trains and named(items)["tiny anchor, seed 0"].trains
    assert {item.job for item in items if item.measures} == {"runs"}
    assert sum(item.measures for item in items) == 12


def test_what_is_asked_for_alone_brings_what_it_needs(store):
    items = plan(store, TINY, [OPD], [2])
    assert [item.name for item in items] == [
        "tiny.base", "tiny.teacher", "tiny anchor, seed 2", "tiny.opd, seed 2", "comparison"
    ]  # fmt: skip


def test_costs_are_positive_and_follow_the_work_that_is_left(store, settle):
    before = named(everything(store))
    assert all(item.cost > 0 for item in before.values())
    settle(store, OPD, 0)
    trained = named(everything(store))
    measure_run(store, OPD, 0, TINY.measurement, serial=True)
    done = named(everything(store))
    costs = [found["tiny.opd, seed 0"].cost for found in (before, trained, done)]
    assert costs == sorted(costs, reverse=True) and len(set(costs)) == 3 and costs[-1] == 1
    assert [f["tiny.opd, seed 0"].trains for f in (before, trained, done)] == [True, False, False]
    assert [f["tiny.opd, seed 0"].measures for f in (before, trained, done)] == [True, True, False]
    assert before["tiny.opd, seed 1"].cost == done["tiny.opd, seed 1"].cost == costs[0]


def test_the_dearest_arms_start_first(store):
    costs = [item.cost for item in everything(store) if item.job == "runs" and item.trains]
    assert costs == sorted(costs, reverse=True)
    assert launch.cost(OPD) > launch.cost(TINY.arms()[2]) > launch.cost(TINY.arms()[3])


def test_a_changed_recipe_is_refused_by_its_fields(store, settle):
    settle(store, OPD, 1)
    arms = [dataclasses.replace(OPD, optimizer=AdamW(learning_rate=0.5))]
    with pytest.raises(ValueError, match=r"runs/tiny\.opd/seed-1 .*optimizer\.learning_rate: 3e-05 -> 0\.5") as caught:
        plan(store, TINY, arms, [0, 1])
    assert "\n" not in str(caught.value)


def test_complete_items_are_reused_if_dagster_knows_them(whole, instance):
    items = named(everything(whole))
    reused = lambda: {item.name for item in Launch(whole, TINY, list(items.values()), instance).reused}
    assert reused() == set()
    for name in ("tiny.base", "tiny anchor, seed 1", "tiny.opd, seed 0"):
        known(instance, items[name])
    assert reused() == {"tiny.base", "tiny anchor, seed 1", "tiny.opd, seed 0"}


def test_what_dagster_knows_is_not_reused_when_the_store_lost_it(whole, instance):
    for item in everything(whole):
        known(instance, item)
    whole.remove("runs/tiny.opd/seed-0/measured.json")
    whole.remove("runs/tiny.rlvr/seed-1/end.json")
    made = Launch(whole, TINY, everything(whole), instance)
    assert {item.name for item in made.items} == {"tiny.opd, seed 0", "tiny.rlvr, seed 1", "comparison"}
    assert set(made.board.work) == {item.name for item in made.items}


def test_the_comparison_is_reused_until_what_it_was_made_from_changes(whole, instance):
    item = everything(whole)[-1]
    known(instance, item)
    assert Launch(whole, TINY, [item], instance).reused == []
    whole.write("reports/tiny/inputs.json", json.dumps(comparing.inputs(whole, TINY)).encode())
    assert Launch(whole, TINY, [item], instance).reused == [item]
    whole.remove("runs/tiny.opd/seed-0/measured.json")
    assert Launch(whole, TINY, [item], instance).reused == []


def test_fetched_weights_are_reused_while_the_comparison_is_still_to_make(store, instance):
    items = everything(store, SMOLLM)
    weights, comparison = items[0], items[-1]
    assert (weights.name, weights.run, comparison.run) == ("smollm weights", None, None)
    assert [item.name for item in items if item.compares] == ["comparison"]
    for item in (weights, comparison):
        known(instance, item)
    assert Launch(store, SMOLLM, items, instance).reused == [weights]


class Lanes:
    """Executes nothing: every item ends at once, as `ends` says, and the order is kept."""

    def __init__(self, ends):
        self.ends, self.order = ends, []

    def submit(self, function, *given):
        future = Future()
        if function is not lane.execute:
            future.set_result(None)
            return future
        _, partition, assets = given
        name = assets[0] if assets else str(partition)
        self.order.append(name)
        future.set_result(lane.Outcome(self.ends.get(name), 1.0))
        return future


def test_what_descends_from_a_failure_never_starts_and_the_rest_goes_on(store, instance, monkeypatch):
    items = [
        Item("a", "models", "a", "base", ("a",)),
        Item("b", "models", "b", "base", ("b",)),
        Item("a's child", "runs", "c", "locking", ("c",), needs=("a",)),
        Item("b's child", "runs", "d", "locking", ("d",), needs=("b",)),
        Item("all", "comparison", "e", "report", ("e",), needs=("a", "b", "a's child", "b's child")),
    ]
    made = Launch(store, TINY, items, instance)
    lanes = Lanes({"a": "no space left"})
    made._fill(lanes)
    assert lanes.order == ["a", "b", "d"]
    assert made.failures == ["a: no space left"]
    assert made.account.all == 3.0


def test_a_settled_run_is_booked_to_training_and_measuring(store, settle, instance, capsys):
    settle(store, OPD)
    keys = {"study": "tiny", "recipe": "tiny.opd", "seed": 0, "step": 4}
    rows = [
        keys | {"phase": phase, "wall_s": wall, "cpu_s": 0.0}
        for phase, wall in (("measure", 2.0), ("base", 1.5), ("train", 50.0), ("sample", 20.0), ("start", 3.0))
    ]
    lake.write(store, "timing", rows, recipe="tiny.opd", seed=0)
    item = Item("o", "runs", "p", "locking", run=(OPD, 0), trains=True, measures=True)
    made = Launch(store, TINY, [item], instance)
    made.trained["tiny.opd", 0] = 5.0
    assert made._settled(item, lane.Outcome(None, 10.0, ["a weight"]))
    account = made.account
    assert (account.training, account.measuring, account.all, account.orchestration) == (5.0, 2.0, 10.0, 3.0)
    assert made.problems == ["a weight"] and made.board.done == 1.0
    assert "trained and measured: 4 steps, accuracy 0.900 at T=1  (10 s)" in capsys.readouterr().out


def test_a_killed_lane_ends_the_launch_with_one_line(store, instance, monkeypatch):
    monkeypatch.setattr(launch, "shared", nullcontext)
    made = Launch(store, TINY, everything(store), instance)
    with monkeypatch.context() as patched:
        patched.setattr(made, "_fill", lambda lanes: (_ for _ in ()).throw(BrokenProcessPool("a\nb")))
        made.go()
    (line,) = made.failures
    assert "was killed" in line and "the same command continues" in line and "\n" not in line


def test_what_lanes_report_moves_the_board_and_the_clock(store, instance):
    items = named(everything(store))
    made = Launch(store, TINY, [items["tiny.opd, seed 0"], items["tiny.opd, seed 1"]], instance)
    events = queue.Queue()
    for share, seconds in ((0.25, 2.0), (0.5, 4.0)):
        events.put(lane.Heard("tiny.opd", 0, "train", share, seconds))
    events.put(None)
    made._listen(events)
    assert made.trained == {("tiny.opd", 0): 4.0}
    assert made.board.share == {"tiny.opd, seed 0": pytest.approx(0.5 / 1.15), "tiny.opd, seed 1": 0.0}
    events.put(lane.Heard("tiny.opd", 0, "measure", 0.5, 0.0))
    events.put(None)
    made._listen(events)
    assert made.board.share["tiny.opd, seed 0"] == pytest.approx((1 + 0.5 * 0.15) / 1.15)
    assert made.trained == {("tiny.opd", 0): 4.0}


def test_an_account_is_never_negative_and_says_its_shares():
    assert Account(training=60.0, measuring=15.0, all=100.0).orchestration == 25.0
    assert str(Account(training=60.0, measuring=15.0, all=100.0)) == (
        "training 1 min 00 s, measuring 15 s, orchestration 25 s (25 % of the lanes' busy time)"
    )
    assert Account(training=9.0, measuring=2.0, all=10.0).orchestration == 0.0
    assert "0 %" in str(Account())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (dg.Failure("disk full\n  at step 3"), "disk full at step 3"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_reason_is_one_line(error, told, instance):
    @dg.op
    def broken():
        raise error

    @dg.job(logger_defs={})
    def work():
        broken()

    result = work.execute_in_process(instance=instance, raise_on_error=False, run_config=lane.SILENT)
    assert lane.reason(result) == told


def test_a_reason_is_the_root_of_a_chain(instance):
    @dg.op
    def broken():
        try:
            raise OSError("disk full")
        except OSError as error:
            raise RuntimeError("wrapped") from error

    @dg.job
    def work():
        broken()

    result = work.execute_in_process(instance=instance, raise_on_error=False, run_config=lane.SILENT)
    assert lane.reason(result) == "OSError: disk full"


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
    assert launch.launch("tiny", "core", [], []) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"DAGSTER_HOME {home} cannot be opened" in err and "repair" in err


def test_absent_weights_are_refused_with_the_command_that_makes_them(told):
    err = told("smollm")
    assert SMOLLM.weights in err and "run `make weights` first" in err


def test_a_study_that_this_machine_cannot_run_is_refused_before_any_work(told, monkeypatch):
    monkeypatch.setattr("pipelines.runs.needs.present", lambda: 0.0)
    err = told("qwen3-8b")
    most = max(map(declared, QWEN.every_arm()))
    assert f"qwen3-8b cannot run here: {most:g} GPUs are needed and 0 found" in err and "opd study show" in err
    # The anchor is trained first, so one arm alone needs its data too.
    assert "sft.jsonl" in told("qwen3-8b", "--recipe", "qwen3-8b.rlvr")


def test_what_is_trained_already_needs_nothing_of_this_machine(store, settle, ended_on, monkeypatch):
    monkeypatch.setattr("pipelines.runs.needs.present", lambda: 0.0)
    for recipe in QWEN.every_arm():
        settle(store, recipe)
    done = ended_on(store, "qwen3-8b")
    assert (done.code, done.err) == (0, "")
    assert f"object store {store.uri}\n" in done.out, "there is no time on two cores to promise"


def test_the_time_is_promised_of_the_suite_it_is_known_of(store, ended_on):
    assert "; the suite takes 3-5 minutes on two cores\n" in ended_on(store, "tiny").out
    assert f"object store {store.uri}\n" in ended_on(store, "tiny", "objectives").out


def test_a_stored_run_of_another_recipe_is_refused(told, tmp_path, settle, store, monkeypatch, capsys):
    settle(store, dataclasses.replace(OPD, optimizer=AdamW(learning_rate=0.5)))
    before = sorted(store.find(""))
    monkeypatch.setenv("OPD_STORE", store.uri)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    assert launch.launch("tiny", "core", [], []) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "holds a run of another recipe (optimizer.learning_rate: 0.5 -> 3e-05)" in err
    assert sorted(store.find("")) == before and not (tmp_path / "dagster").exists()


# Exit codes


@pytest.fixture
def ended_on(tmp_path, monkeypatch, capsys):
    """ended_on(store, study, suite, go=): exit code and output of a launch that executes `go(launch)` instead."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setattr(launch, "summarise", lambda *_: print("summary"))

    def run(store, study, suite="core", go=lambda made: None):
        monkeypatch.setenv("OPD_STORE", store.uri)
        monkeypatch.setattr(Launch, "go", go)
        code = launch.launch(study, suite, [], [])
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
    assert (done.code, done.err) == (0, "") and "18 Dagster runs, of which 0 are complete" in done.out
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
        with pytest.raises(KeyboardInterrupt), launch.terminable():
            signal.raise_signal(number)
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert signal.getsignal(signal.SIGTERM) == before


# What is said at the end


def test_the_end_tells_of_measured_arms_of_the_suite_objectives(store, plant, capsys):
    plant()
    launch.summarise(store, TINY, Account())
    assert "opd-" not in capsys.readouterr().out
    plant(more=("opd-pg",))
    launch.summarise(store, TINY, Account())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("OPD ", "RLVR ", "opd-"))] == [
        "OPD",
        "RLVR",
        "opd-pg",
    ]


# DAGSTER_HOME


def test_a_home_is_made_with_our_configuration_unless_it_has_one(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "a" / "home"))
    assert home_of.home() == tmp_path / "a" / "home"
    config = tmp_path / "a" / "home" / "dagster.yaml"
    assert config.read_text() == Path(home_of.__file__).with_name("dagster.yaml").read_text()
    config.write_text("telemetry:\n  enabled: true\n")
    home_of.home()
    assert config.read_text() == "telemetry:\n  enabled: true\n"


def test_without_a_variable_home_lies_here_and_is_exported(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.chdir(tmp_path)
    assert home_of.home() == tmp_path / ".opd" / "dagster"
    assert os.environ["DAGSTER_HOME"] == str(tmp_path / ".opd" / "dagster")


def test_our_configuration_sends_nothing_and_is_one_dagster_accepts(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with home_of.local_instance() as made:
        assert made.telemetry_enabled is False
        assert made.root_directory == str(tmp_path)
