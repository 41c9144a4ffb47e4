"""Three nights of the sweep, tick by tick, with a run that fails in the second: what is asked for, and nothing else."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from assets import automation, models
from assets.partitions import STUDIES, anchor_key, anchor_of, run_key, run_of
from pipelines.runs.geometry.measuring import measure_run
from pipelines.runs.verdicts.comparing import comparison_inputs
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Measurement

SMALL = replace(STUDIES["tiny"], seeds=(0, 1), measurement=Measurement(tables=("update_norm",)))
SFT, OPD, RLVR, MATCHED = SMALL.arms("core")
MINUTES = (0, 10, 20, 30, 290)  # after one o'clock


def runs(*seeds):
    return {run_key(recipe.name, seed) for recipe in (SFT, OPD, RLVR, MATCHED) for seed in seeds}


class Nights:
    """A daemon that launches what is requested under a run key that it has not seen, and runs that end at once."""

    def __init__(self, store, instance, settle, execute):
        self.store, self.instance, self.settle, self.execute = store, instance, settle, execute
        self.keys, self.broken = set(), set()

    def night(self, day):
        """What was launched, as (job, partitions), in the order of ticks."""
        launched = []
        for minutes in MINUTES:
            time = datetime(2026, 3, day, 1, 0, tzinfo=UTC) + timedelta(minutes=minutes)
            requests = [one for one in self.tick(time) if one.run_key not in self.keys]
            self.keys |= {one.run_key for one in requests}
            for job in dict.fromkeys(one.job_name for one in requests):
                launched.append((job, {one.partition_key for one in requests if one.job_name == job}))
            for one in requests:
                self.perform(one.job_name, one.partition_key)
        return launched

    def tick(self, time):
        return automation.build_requests(self.instance, self.store, time, print)

    def perform(self, job, partition):
        """What the job would leave in the store and in Dagster's record; the broken one is a real run, which fails."""
        study = STUDIES["tiny"]
        if partition in self.broken:
            assert not self.execute(job, partition).success
        elif job in ("models", "teachers"):
            (recipe,) = (model for model in study.models if automation.BY_MODEL[model.arm].name == job)
            self.complete(recipe, 0, recipe.arm, partition)
        elif job == "anchors":
            self.complete(SFT, anchor_of(partition)[1], "anchor", partition)
        elif job == "runs":
            recipe, seed = run_of(partition)
            self.complete(recipe, seed, "trajectory", partition)
            measure_run(self.store, recipe, seed, study.measurement, serial=True)
            self.report("update_norm", partition, partition)
        elif job == "comparison":
            self.store.write("reports/tiny/inputs.json", json.dumps(comparison_inputs(self.store, study)).encode())
            self.report("report", partition, partition)

    def complete(self, recipe, seed, asset, partition):
        end = Trajectory(self.store, recipe.name, seed).end() or self.settle(self.store, recipe, seed).end()
        self.report(asset, partition, end["digest"])

    def report(self, asset, partition, version):
        tags = {"dagster/data_version": version}
        self.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition, tags=tags))


@pytest.fixture
def nights(store, instance, settle, execute, monkeypatch):
    def full(store, recipe, seed, **_):
        raise ValueError(f"no space left for {recipe.name} seed {seed}; make some")

    monkeypatch.setitem(STUDIES, "tiny", SMALL)
    monkeypatch.setattr(models, "train", full)
    return Nights(store, instance, settle, execute)


def test_three_nights_with_a_failure_in_the_second_request_exactly_what_they_should(nights, instance, monkeypatch):
    # Nothing is there: models, then anchors, then runs, then the comparison, each once what it needs is complete.
    assert nights.night(1) == [
        ("models", {"tiny"}),
        ("teachers", {"tiny"}),
        ("anchors", {anchor_key("tiny", 0), anchor_key("tiny", 1)}),
        ("runs", runs(0, 1)),
        ("comparison", {"tiny"}),
        ("exhibits", {"tiny"}),
    ]

    # By day the study gets a third seed, and one run of it is brought from another store, not measured.
    monkeypatch.setitem(STUDIES, "tiny", replace(SMALL, seeds=(0, 1, 2)))
    nights.settle(nights.store, OPD, 2)
    failing = run_key(RLVR.name, 2)
    nights.broken.add(failing)
    # What fails is asked for once a night, and the comparison waits for it.
    brought = {run_key(OPD.name, 2)}
    assert nights.night(2) == [("anchors", {anchor_key("tiny", 2)}), ("runs", brought), ("runs", runs(2) - brought)]
    (failed,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert failed.tags["dagster/partition"] == failing
    assert Trajectory(nights.store, RLVR.name, 2).end() is None

    # By day there is space again, and two measurements are lost: what failed, what is gone, and the comparison.
    nights.broken.clear()
    for recipe, seed in ((SFT, 0), (OPD, 1)):
        nights.store.remove(f"{Trajectory(nights.store, recipe.name, seed).prefix}/measured.json")
    assert nights.night(3) == [
        ("runs", {failing, run_key(SFT.name, 0), run_key(OPD.name, 1)}),
        ("comparison", {"tiny"}),
        ("exhibits", {"tiny"}),
    ]

    made = instance.get_materialized_partitions(dg.AssetKey("trajectory"))
    assert made == {str(key) for key in runs(0, 1, 2)}
    assert nights.night(4) == []
    # Another version of the engine makes all tables stale, and with them the comparison.
    monkeypatch.setattr("pipelines.runs.geometry.measuring.VERSION", "another")
    assert nights.night(5) == [("runs", runs(0, 1, 2)), ("comparison", {"tiny"}), ("exhibits", {"tiny"})]


def test_a_tick_asked_again_asks_under_the_same_keys(nights):
    for recipe in SMALL.models:
        nights.settle(nights.store, recipe)
    time = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
    found = [{one.run_key for one in nights.tick(time)} for _ in range(2)]
    assert found[0] == found[1] == {f"2026-03-02:anchors:{anchor_key('tiny', seed)}" for seed in (0, 1)}
