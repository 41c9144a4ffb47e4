"""A launch: what it reuses, what a failure holds up, and how the lanes' time is booked and shown."""

import json
import queue
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext

import dagster as dg
import pytest

from assets import lane, launch
from assets.launch import Account, Launch
from assets.partitions import STUDIES
from assets.plan import Item, measure_share
from pipelines import lake
from pipelines.runs.verdicts import comparing
from tests.assets.conftest import everything, named

TINY, SMOLLM = STUDIES["tiny"], STUDIES["smollm"]
OPD = TINY.every_arm()[1]


def known(instance, item):
    """Dagster knows the item's partition."""
    event = dg.AssetMaterialization(item.asset, partition=item.partition)
    instance.report_runless_asset_event(event)


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
    assert {item.name for item in made.items} == {"tiny.opd, seed 0", "tiny.rlvr, seed 1", "comparison", "figures"}
    assert set(made.board.work) == {item.name for item in made.items}


def test_the_comparison_is_reused_until_what_it_was_made_from_changes(whole, instance):
    item = named(everything(whole))["comparison"]
    known(instance, item)
    assert Launch(whole, TINY, [item], instance).reused == []
    whole.write("reports/tiny/inputs.json", json.dumps(comparing.comparison_inputs(whole, TINY)).encode())
    assert Launch(whole, TINY, [item], instance).reused == [item]
    whole.remove("runs/tiny.opd/seed-0/measured.json")
    assert Launch(whole, TINY, [item], instance).reused == []


def test_the_comparison_is_made_again_after_runs_that_are_still_to_come(whole, instance):
    item = named(everything(whole))["comparison"]
    known(instance, item)
    whole.write("reports/tiny/inputs.json", json.dumps(comparing.comparison_inputs(whole, TINY)).encode())
    for coming in ({"trains": True}, {"measures": True}):
        run = Item("another suite's", "runs", "p", "locking", run=(OPD, 0), **coming)
        assert Launch(whole, TINY, [run, item], instance).items == [run, item]


def test_fetched_weights_are_reused_while_the_comparison_is_still_to_make(store, instance):
    items = everything(store, SMOLLM)
    weights, comparison = items[0], named(items)["comparison"]
    assert (weights.name, weights.run, comparison.run) == ("smollm weights", None, None)
    assert [item.name for item in items if item.compares] == ["comparison", "figures"]
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


def test_what_descends_from_a_failure_never_starts_and_the_rest_goes_on(store, instance, capsys):
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
    assert "failed: no space left" in capsys.readouterr().out, "at once, not at the end"
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
    assert made._settle_item(item, lane.Outcome(None, 10.0, ["a weight"]))
    account = made.account
    assert (account.training, account.measuring, account.all, account.orchestration) == (5.0, 2.0, 10.0, 3.0)
    assert made.problems == ["a weight"] and made.board.done == 1.0
    assert "trained, measured: 4 steps, accuracy 0.900, 10 s" in capsys.readouterr().out


def test_a_killed_lane_ends_the_launch_with_one_line(store, instance, monkeypatch):
    monkeypatch.setattr(launch, "share_ray", nullcontext)
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
        events.put(lane.ProgressEvent("tiny.opd", 0, "train", share, seconds))
    events.put(None)
    made._listen(events)
    assert made.trained == {("tiny.opd", 0): 4.0}
    split = 1 / (1 + measure_share(OPD))
    assert made.board.share == {"tiny.opd, seed 0": pytest.approx(0.5 * split), "tiny.opd, seed 1": 0.0}
    events.put(lane.ProgressEvent("tiny.opd", 0, "measure", 0.5, 0.0))
    events.put(None)
    made._listen(events)
    assert made.board.share["tiny.opd, seed 0"] == pytest.approx(split + 0.5 * (1 - split))
    assert made.trained == {("tiny.opd", 0): 4.0}


def test_an_account_is_never_negative_and_says_its_shares():
    assert Account(training=60.0, measuring=15.0, all=100.0).orchestration == 25.0
    assert str(Account(training=60.0, measuring=15.0, all=100.0)) == (
        "training 1 min 00 s, measuring 15 s, orchestration 25 s (25 %)"
    )
    assert Account(training=9.0, measuring=2.0, all=10.0).orchestration == 0.0
    assert "0 %" in str(Account())
