"""Clocks that jump: of this machine, of the store, in the middle of a run. Nothing young is swept, nothing is lost."""

import os
import time

import pytest

from pipelines.maintenance import sweeping
from pipelines.maintenance.audit import audit
from pipelines.maintenance.sweeping import DAY, keep_idle, list_deletable, read_store_clock, sweep
from pipelines.store.objects import Store
from tests.pipelines.maintenance.planted import contents, furnish, plant, weights

YEAR = 365 * DAY
STEP = 9


@pytest.fixture
def files(tmp_path):
    return Store(f"file://{tmp_path}/a store")


def dated(store, shift):
    """Every object was written `shift` seconds from now; a clock that jumps ahead makes them as old."""
    for key in store.find(""):
        os.utime(store.path(key), (time.time() + shift,) * 2)


class Writer:
    """A live writer that stands between a snapshot's weights and its manifest, where a sweep may come."""

    def __init__(self, store, patch):
        self.run, self.between = plant(store, "tiny.rlvr", 2, end=False), lambda: None
        create = Store.create

        def created(store, key, *parts):
            if key == self.run.snapshot(STEP).key:
                self.between()
            create(store, key, *parts)

        patch.setattr(Store, "create", created)

    def commit(self, between):
        self.between = between
        self.run.commit(STEP, weights(STEP), 7)
        assert self.run.verify(STEP) == []


@pytest.fixture
def writer(files, monkeypatch):
    return Writer(files, monkeypatch)


@pytest.mark.parametrize("shift", [2 * DAY, -2 * DAY])
def test_a_clients_clock_that_is_wrong_makes_nothing_old(shift, files, writer, monkeypatch):
    true = time.time

    def between():
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: true() + shift)
            assert list_deletable(files) == []

    writer.commit(between)


def test_the_clock_is_that_of_the_store(files, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + YEAR)
    assert abs(read_store_clock(files) - now) < 60
    assert files.find("") == []
    monkeypatch.setattr(Store, "write", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    assert read_store_clock(files) == now + YEAR  # nobody else can be asked


def test_what_looks_old_since_the_clock_jumped_stays_where_its_run_is_written_to(files, writer, monkeypatch):
    """The manifest comes while the sweep watches."""
    swept = []

    def between():
        dated(files, -2 * DAY)
        found = list_deletable(files)
        assert [one.why for one in found] == ["weights without a manifest"]
        swept.extend(found)

    writer.commit(between)
    dated(files, -2 * DAY)
    monkeypatch.setattr(sweeping, "WATCH", 0.0)
    assert keep_idle(files, swept) == []


def test_another_object_of_the_run_is_a_sign_of_life(files, writer, monkeypatch):
    def between():
        dated(files, -2 * DAY)
        found = list_deletable(files)
        facts = f"{writer.run.prefix}/run.json"
        monkeypatch.setattr(sweeping.time, "sleep", lambda seconds: files.write(facts, files.read(facts)))
        assert found and keep_idle(files, found) == []

    writer.commit(between)


def test_weights_that_a_sweep_took_for_old_come_back_with_their_manifest(files, writer):
    """The worst case: nothing moved while it watched, and they went."""

    def between():
        dated(files, -2 * DAY)
        assert [went for _, went in sweep(files, list_deletable(files))] == [True]
        assert not files.exists(f"{writer.run.snapshot(STEP).folder}/master.safetensors")

    writer.commit(between)
    assert [finding for finding in audit(files, deep=True).findings if finding.kind != "orphan"] == []


@pytest.mark.parametrize("resume", ["finished", "all"])
def test_what_was_left_by_a_clock_that_ran_ahead_has_no_age(resume, files):
    furnish(files)
    files.write("runs/tiny.opd/seed-0/step-00000099/master.safetensors", b"1")
    dated(files, YEAR)
    whole = contents(files)
    assert list_deletable(files, age=0.0, resume=resume) == []
    assert audit(files, deep=True).findings != () and contents(files) == whole


def test_what_nobody_writes_to_goes_after_it_was_watched(files, monkeypatch):
    furnish(files)
    orphan = "runs/tiny.opd/seed-0/step-00000099/master.safetensors"
    files.write(orphan, b"1")
    dated(files, -2 * DAY)
    waited = []
    monkeypatch.setattr(sweeping.time, "sleep", waited.append)
    found = keep_idle(files, list_deletable(files))
    assert waited == [sweeping.WATCH]
    assert [key for one, went in sweep(files, found) for key in one.keys if went] == [orphan]


def test_nothing_is_waited_for_where_nothing_is_old(files, monkeypatch):
    furnish(files)
    monkeypatch.setattr(sweeping.time, "sleep", lambda seconds: pytest.fail("waited"))
    assert keep_idle(files, list_deletable(files)) == []
