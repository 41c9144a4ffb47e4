"""A folder of checkpoints is a series by the steps in their names; members that are not whole are set apart."""

import pytest

from pipelines.store.checkpoint_series import open_trajectory
from pipelines.store.checkpoints import open_checkpoint
from pipelines.store.trajectory import Trajectory
from tests.pipelines.store.conftest import llama, same, save


def test_a_series_is_found_by_the_steps_in_names(near):
    names = {"step-100": 100, "step_20": 20, "checkpoint-7": 7, "iter_0000063": 63, "global_step300": 300, "1": 1}
    names |= {"step-00000000": 0}
    for name, step in names.items():
        save(near, f"run/{name}", llama(step))
    for other in ("notes.txt", "step-x/model.safetensors", "last/x", "checkpoint-8-merged/x", "epoch-3/x"):
        near.write(f"run/{other}", b"x")
    found = open_trajectory(f"{near.uri}/run")
    steps = sorted((step, f"{near.uri}/run/{name}") for name, step in names.items())
    assert found.complete == tuple(steps) and found.incomplete == ()
    assert same(open_checkpoint("snapshot 20", found.complete[3][1]), llama(20))


def test_a_series_by_path(files, tmp_path, monkeypatch):
    save(files, "run/checkpoint-5", llama())
    monkeypatch.chdir(tmp_path)
    expected = ((5, f"{files.uri}/run/checkpoint-5"),)
    assert open_trajectory("run").complete == open_trajectory(f"{tmp_path}/run/").complete == expected


def test_incomplete_members_are_set_apart_with_the_reason(any_store):
    save(any_store, "run/step-1", llama())
    any_store.write("run/step-2/config.json", b"{}")
    save(any_store, "run/step-3", llama(), shards=2)
    any_store.remove("run/step-3/model-1-of-2.safetensors")
    save(any_store, "run/step-4", llama())
    any_store.write("run/step-4/model.safetensors", any_store.read("run/step-4/model.safetensors")[:-1])
    any_store.write("run/step-5/tmp/x", b"")
    found = open_trajectory(f"{any_store.uri}/run")
    assert [step for step, _ in found.complete] == [1]
    whys = dict(found.incomplete)
    assert list(whys) == [2, 3, 4, 5]
    assert all(why.startswith(f"snapshot {step}: ") and "\n" not in why for step, why in whys.items())
    assert "no other weights" in whys[2] and "'model-1-of-2.safetensors'" in whys[3] and "is truncated" in whys[4]


def test_files_with_the_name_of_a_member_are_passed_over(files):
    ref = save(files, "run/step-1", llama())
    files.write("run/step-2", b"")
    assert open_trajectory(f"{files.uri}/run").complete == ((1, ref),)


def test_members_that_waiting_does_not_mend_are_refused(memory):
    save(memory, "run/step-1", llama())
    memory.write("run/step-2/pytorch_model.bin", b"x")
    with pytest.raises(ValueError, match=r"^snapshot 2: .*run/step-2 holds no .* pickled"):
        open_trajectory(f"{memory.uri}/run")


def test_an_own_trajectory_is_a_series_from_its_base_on(near):
    run = Trajectory(near, "tiny.opd", 0)
    run.register({"identity": {}, "fingerprint": "x", "inputs": {}})
    for step in (0, 5, 10):
        run.commit(step, llama(step), None)
    run.save_resume(10, llama(), {})
    near.remove(f"{run.prefix}/step-00000010/manifest.json")
    found = open_trajectory(f"{near.uri}/{run.prefix}")
    assert found.complete == tuple((t, f"{near.uri}/{run.prefix}/step-{t:08d}") for t in (0, 5))
    ((step, why),) = found.incomplete
    assert step == 10 and "not committed" in why


def test_two_members_of_one_step(memory):
    save(memory, "run/step-100", llama())
    save(memory, "run/checkpoint-100", llama())
    message = rf"^checkpoint-100 and step-100 under {memory.uri}/run are both of step 100; move one of them away$"
    with pytest.raises(ValueError, match=message):
        open_trajectory(f"{memory.uri}/run")


def test_no_members(memory, files, tmp_path):
    save(files, "run/final", llama())
    for prefix in (f"{tmp_path}/run", f"{memory.uri}/run"):
        with pytest.raises(ValueError, match=rf"^{prefix} holds no checkpoint .*; understood are step-100, step_100, "):
            open_trajectory(prefix)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/none is not a folder; name the folder or URI prefix"):
        open_trajectory(f"{tmp_path}/none")
