"""A sweep deletes what it says, nothing that is committed, and nothing that a live run is writing."""

import os
import time
import uuid
from datetime import UTC, datetime

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.maintenance.audit import audit
from pipelines.maintenance.inventory import classify
from pipelines.maintenance.sweeping import DAY, list_deletable, sweep
from pipelines.store.objects import Listed, Store
from pipelines.store.tensors import serialise
from pipelines.store.trajectory import Trajectory
from tests.pipelines.maintenance.planted import contents, furnish

RUN, GOING = "runs/tiny.opd/seed-0", "runs/tiny.rlvr/seed-2"
LATER = 2 * DAY
STATES = [f"resume/step-0000000{n}/{name}" for n in (7, 3) for name in ("facts.json", "state.safetensors")]
LEFT = {
    "weights": f"{RUN}/step-00000099/master.safetensors",
    "written": f"{RUN}/step-00000007/.master.safetensors.{uuid.uuid4().hex}",
    "probe": f".probe-{uuid.uuid4().hex}",
    "model": f"models/m/.config.json.{uuid.uuid4().hex}",
    "score": f"scores/fresh-0/{'0' * 64}.parquet",
    "state": f"{GOING}/resume/step-00000009/state.safetensors",
}


def litter(store):
    for key in LEFT.values():
        store.write(key, serialise({"w": torch.ones(2)}))
    for state in STATES[2:]:
        store.write(f"{GOING}/{state}", store.read(f"{GOING}/{state.replace('3', '7')}"))
    for state in STATES:
        store.write(f"{RUN}/{state}", store.read(f"{GOING}/{state}"))
    return store


def swept(store, **how):
    """Keys that a sweep two days from now deletes, which are those it said before."""
    found = list_deletable(store, now=time.time() + LATER, **how)
    before = set(store.find(""))
    assert all(went for _, went in sweep(store, found))
    gone = before - set(store.find(""))
    assert gone == {key for one in found for key in one.keys}
    return gone


def test_what_was_left_goes_and_what_is_committed_stays(near):
    furnish(near)
    whole = contents(near)
    litter(near)
    gone = swept(near)
    states = {f"{RUN}/{state}" for state in STATES} | {f"{GOING}/{state}" for state in STATES[2:]}
    assert gone == set(LEFT.values()) | states
    assert contents(near) == whole
    assert audit(near, deep=True).findings == ()
    assert Trajectory(near, "tiny.rlvr", 2).load_resume()[0] == 7
    assert swept(near) == set()


def test_nothing_goes_before_its_age(furnished):
    litter(furnished)
    assert list_deletable(furnished) == []
    assert list_deletable(furnished, now=time.time() + DAY - 60) == []
    assert len(list_deletable(furnished, now=time.time() + 100, age=60)) == len(
        list_deletable(furnished, now=time.time() + LATER)
    )


def test_policies_of_resume_state(furnished):
    litter(furnished)
    keep, finished, every = (
        {key for one in list_deletable(furnished, now=time.time() + LATER, resume=p) for key in one.keys}
        for p in ("keep", "finished", "all")
    )
    assert keep == set(LEFT.values()) < finished < every
    assert every - finished == {f"{GOING}/{state}" for state in STATES[:2]}


def test_a_run_that_is_written_to_keeps_what_it_is_writing(files):
    """Weights of days ago, and a manifest of another step of a minute ago: the run is alive."""
    furnish(files)
    litter(files)
    old = time.time() - LATER
    for key in files.find(""):
        os.utime(files.path(key), (old, old))
    assert {LEFT["weights"], LEFT["state"]} <= {key for one in list_deletable(files) for key in one.keys}
    for run in (RUN, GOING):
        os.utime(files.path(f"{run}/step-00000003/manifest.json"))
    assert not {LEFT["weights"], LEFT["state"]} & {key for one in list_deletable(files) for key in one.keys}


def test_a_run_of_a_damaged_end_keeps_its_resume_state(furnished):
    litter(furnished)
    furnished.write(f"{RUN}/end.json", b"{")
    assert not {f"{RUN}/{state}" for state in STATES[:2]} & swept(furnished)


def test_weights_that_are_committed_before_they_go_stay(furnished):
    run = Trajectory(furnished, "tiny.opd", 0)
    furnished.write(
        run.snapshot(9).key.replace("manifest.json", "master.safetensors"),
        serialise({"w": torch.rand(2, generator=torch.Generator().manual_seed(0))}),
    )
    found = list_deletable(furnished, now=time.time() + LATER)
    run.commit(9, {"w": torch.rand(2, generator=torch.Generator().manual_seed(0))}, None)
    assert [went for _, went in sweep(furnished, found)] == [False]
    assert run.verify(9) == []


def test_weights_that_are_committed_while_they_go_are_put_back(furnished, monkeypatch):
    """A rerun finds the weights it would write, and its manifest comes between the last look and the deletion."""
    run = Trajectory(furnished, "tiny.opd", 0)
    furnished.write(
        run.snapshot(9).key.replace("manifest.json", "master.safetensors"),
        serialise({"w": torch.rand(2, generator=torch.Generator().manual_seed(0))}),
    )
    found, remove = list_deletable(furnished, now=time.time() + LATER), Store.remove

    def removed(store, key):
        if key.endswith("master.safetensors"):
            run.commit(9, {"w": torch.rand(2, generator=torch.Generator().manual_seed(0))}, None)
        remove(store, key)

    monkeypatch.setattr(Store, "remove", removed)
    assert [went for _, went in sweep(furnished, found)] == [False]
    assert run.verify(9) == []


def test_what_was_written_again_stays(furnished):
    litter(furnished)
    found = [one for one in list_deletable(furnished, now=time.time() + LATER) if LEFT["model"] in one.keys]
    time.sleep(0.01)
    furnished.write(LEFT["model"], b"new")
    assert [went for _, went in sweep(furnished, found)] == [False]
    assert furnished.read(LEFT["model"]) == b"new"


def test_a_sweep_that_is_stopped_goes_on(furnished):
    litter(furnished)
    found = list_deletable(furnished, now=time.time() + LATER)
    for _ in range(len(found) - 2):
        next(sweep(furnished, list_deletable(furnished, now=time.time() + LATER)))
    assert len(list_deletable(furnished, now=time.time() + LATER)) == 2
    swept(furnished)
    assert audit(furnished).findings == ()


@pytest.mark.parametrize(("how", "line"), [({"resume": "none"}, "policy 'none' is unknown"), ({"age": -1}, "age -1")])
def test_what_is_no_policy_or_age_is_one_line(furnished, how, line):
    with pytest.raises(ValueError, match=line):
        list_deletable(furnished, **how)


PARTS = ("run.json", "end.json", "measured.json", "rollouts/steps-00000001-00000002.parquet", "notes", "measured/a/b")
STEPS = ("manifest.json", "master.safetensors", "other.safetensors", f".x.{'0' * 32}")
NAMES = st.one_of(
    st.sampled_from(PARTS),
    st.tuples(st.sampled_from(["step", "moments/step", "resume/step"]), st.integers(0, 3), st.sampled_from(STEPS)).map(
        lambda part: f"{part[0]}-{part[1]:08d}/{part[2]}"
    ),
    st.tuples(
        st.sampled_from(["moments", "resume"]), st.integers(0, 3), st.sampled_from(["facts.json", "state.safetensors"])
    ).map(lambda part: f"{part[0]}/step-{part[1]:08d}/{part[2]}"),
)


@settings(max_examples=60)
@given(st.sets(NAMES), st.sampled_from(["finished", "all", "keep"]))
def test_whatever_lies_there_nothing_that_is_kept_goes(names, policy):
    store = Store(f"memory://{uuid.uuid4().hex}")
    for name in names:
        store.write(f"runs/a/seed-0/{name}", b"{}")
    gone = {key for one in list_deletable(store, now=time.time() + LATER, resume=policy) for key in one.keys}
    for key in gone:
        item = classify(key)
        assert item.kind in ("temporary", "weights", "resume")
        if item.kind == "weights":
            assert f"step-{item.step:08d}/manifest.json" not in names
        if item.kind == "resume":
            valid = [n for n in range(4) if f"resume/step-{n:08d}/facts.json" in names]
            if item.step in valid:
                assert policy != "keep"
                assert "end.json" in names or item.step < max(valid) or policy == "all"


def test_a_listing_of_s3_is_read_as_its_date():
    date = datetime(2026, 1, 2, tzinfo=UTC)
    assert Listed.from_info({"size": 3, "LastModified": date}) == Listed(3, date.timestamp())
    assert Listed.from_info({"size": 3, "mtime": 5}) == Listed(3, 5.0)
