"""Runs that were really trained and measured: verified, moved, swept, restored."""

import time
import uuid

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipelines.maintenance.audit import audit
from pipelines.maintenance.copying import copy_run
from pipelines.maintenance.exporting import export
from pipelines.maintenance.inventory import Inventory
from pipelines.maintenance.sweeping import DAY, list_deletable
from pipelines.runs.geometry.measuring import is_measured, measure_run
from pipelines.runs.trajectories.training import complete, train
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Measurement

CUTS = Measurement(k=(4,), hill_k=(4,))


def test_a_trained_and_measured_run_is_whole_moves_and_opens(seeded, arm, tmp_path):
    store, recipe = seeded("pre", "teacher", "opd"), arm("opd")
    measure_run(store, recipe, 0, CUTS, serial=True)
    found = audit(store, deep=True)
    assert found.findings == () and found.snapshots == found.hashed == 12
    kinds = {item.kind for item in Inventory(store.list_objects("")).items}
    assert {"run", "end", "manifest", "weights", "rollouts", "part", "record", "table"} <= kinds
    assert list_deletable(store, now=time.time() + 9 * DAY) == []

    target = Store(f"memory://{uuid.uuid4().hex}")
    copy_run(store, target, "mini.opd", 0)
    assert complete(target, recipe, 0) and is_measured(target, recipe, 0, CUTS)
    assert audit(target, deep=True).findings == ()

    run = Trajectory(target, "mini.opd", 0)
    export(target, "mini.opd", 0, 3, str(tmp_path / "model"))
    state = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    assert all(torch.equal(state[name], ref.read()) for name, ref in run.refs(3).items())


def test_a_run_that_was_moved_half_way_ends_as_it_would_have(grown, seeded, arm, monkeypatch):
    """Stopped after its first resume state, copied, and trained to its end in the other store."""
    store, recipe = seeded("pre"), arm("rlvr")
    finish = Trajectory.save_resume

    def stop(self, step, *rest):
        finish(self, step, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trajectory, "save_resume", stop)
    with pytest.raises(KeyboardInterrupt):
        train(store, recipe, 0, serial=True)
    monkeypatch.setattr(Trajectory, "save_resume", finish)
    assert audit(store).findings == ()
    target = Store(f"memory://{uuid.uuid4().hex}")
    for name in ("pre", "rlvr"):
        copy_run(store, target, f"mini.{name}", 0)
    end = train(target, recipe, 0, serial=True)
    assert end == Trajectory(grown, "mini.rlvr", 0).end()
    assert audit(target, deep=True).findings == ()
