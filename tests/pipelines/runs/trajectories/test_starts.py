import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from opd_ops.models import assemble, configuration
from opd_ops.recipe import FinalOf, SnapshotOf, Weights
from pipelines.runs.trajectories import starts
from pipelines.runs.trajectories.run import TrainingRun
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from tests.pipelines.runs.mini import TASK


@pytest.fixture
def folder(arm, tmp_path):
    """A Hugging Face folder, with a space in its name."""
    from opd_ops.models import initialise

    config = configuration(arm("pre").start.architecture, pad=0, bos=1, eos=2)
    path = tmp_path / "a model"
    assemble(config, initialise(config, 0), torch.float32).save_pretrained(path)
    return path


def test_absent_weights_name_the_command_that_makes_them(store, arm):
    message = rf"^{store.uri}/models/small holds no weights: run `make weights` first$"
    weights = Weights(ref="models/small")
    for attempt in (starts.require, lambda store, start: starts.load(store, start, 0, TASK)):
        with pytest.raises(ValueError, match=message):
            attempt(store, weights)
    with pytest.raises(ValueError, match=message):
        TrainingRun(store, arm("rlvr", start=weights), 0, {})


def test_what_other_runs_make_is_not_required_beforehand(store, arm):
    starts.require(store, arm("pre").start)
    starts.require(store, FinalOf(recipe="mini.none"))
    starts.require(store, SnapshotOf(recipe="mini.none", step=3))


def test_a_fresh_start_depends_on_its_seed_alone(store, arm):
    one, same, other = (starts.load(store, arm("pre").start, seed, TASK) for seed in (0, 0, 1))
    assert (one.digest, other.digest) == ("fresh-0", "fresh-1")
    assert all(torch.equal(w, same.weights[name]) for name, w in one.weights.items())
    assert any(not torch.equal(w, other.weights[name]) for name, w in one.weights.items())


def test_the_plain_configuration_builds_the_same_model(store, arm):
    from opd_ops.models import configuration_from

    start = starts.load(store, arm("pre").start, 0, TASK)
    plain = start.plain_config()
    assert plain == json.loads(json.dumps(plain))
    ids = torch.tensor([[1, 5, 9, 4]])
    found = [assemble(c, start.weights, torch.float32)(ids).logits for c in (start.config, configuration_from(plain))]
    assert torch.equal(*found)


def test_the_end_of_a_run_is_its_last_snapshot(grown):
    model = starts.load(grown, FinalOf(recipe="mini.pre"), 0, TASK)
    trajectory = Trajectory(grown, "mini.pre", 0)
    assert model.digest == trajectory.digest(7)
    assert all(torch.equal(w, trajectory.refs(7)[name].read()) for name, w in model.weights.items())


def test_a_snapshot_of_a_run_is_its_masters_at_that_step(grown):
    trajectory = Trajectory(grown, "mini.teacher", 0)
    for seed, start in (
        (0, SnapshotOf(recipe="mini.teacher", step=3)),
        (5, SnapshotOf(recipe="mini.teacher", step=3, seed=0)),
    ):
        model = starts.load(grown, start, seed, TASK)
        assert model.digest == trajectory.digest(3) != trajectory.digest(7)
        assert all(torch.equal(w, trajectory.refs(3)[name].read()) for name, w in model.weights.items())
        assert model.folder is None
        assert starts.moments(grown, start, seed) is None
    assert starts.moments(grown, FinalOf(recipe="mini.teacher"), 0) is None


def test_moments_of_an_unknown_kind_or_of_the_start_are_refused():
    with pytest.raises(ValueError, match=r"^unknown start\.moments 'keep'; known: reset, kept$"):
        SnapshotOf(recipe="mini.pre", step=1, moments="keep")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^start\.moments 'kept' needs a step from 1 up"):
        SnapshotOf(recipe="mini.pre", step=0, moments="kept")


def test_a_run_that_goes_on_is_a_start_where_its_snapshot_is(store, arm):
    TrainingRun(store, arm("pre"), 0, {}).work(2)
    assert starts.load(store, SnapshotOf(recipe="mini.pre", step=1), 0, TASK).digest
    message = r"^runs/mini\.pre/seed-0 has no snapshot of step 3; it has those of steps 0, 1$"
    with pytest.raises(ValueError, match=message):
        starts.load(store, SnapshotOf(recipe="mini.pre", step=3), 0, TASK)
    with pytest.raises(
        ValueError, match=r"^runs/mini\.none/seed-0 has no snapshot of step 1; .* none: train it first$"
    ):
        starts.load(store, SnapshotOf(recipe="mini.none", step=1), 0, TASK)


def test_a_tokenizer_is_followed_back_through_snapshots(store, folder):
    chain = {
        "mini.one": {"kind": "weights", "ref": str(folder)},
        "mini.two": {"kind": "snapshot", "recipe": "mini.one", "step": 1, "seed": None, "moments": "reset"},
        "mini.three": {"kind": "final", "recipe": "mini.two", "seed": 2},
    }
    for name, start in chain.items():
        for seed in (2, 4):
            facts = {"identity": {"start": start}, "fingerprint": name, "inputs": {}}
            Trajectory(store, name, seed).register(facts)
    found = starts.tokenizer_folder(store, SnapshotOf(recipe="mini.three", step=0), 4)
    assert found == str(folder)


def test_an_unfinished_run_is_no_start(store, arm):
    TrainingRun(store, arm("pre"), 0, {}).work(3)
    with pytest.raises(ValueError, match=r"^runs/mini\.pre/seed-0 is not complete.*train it first$"):
        starts.load(store, FinalOf(recipe="mini.pre"), 0, TASK)


def test_a_folder_is_the_same_by_path_and_in_any_store(folder, store):
    shutil.copytree(folder, store.path("models/small"))
    memory = Store(f"memory://{folder.name}/{id(folder)}")
    for file in folder.iterdir():
        memory.write(f"models/small/{file.name}", file.read_bytes())
    here = starts.load(store, Weights(ref=str(folder)), 0, TASK)
    for where in (store, memory):
        there = starts.load(where, Weights(ref="models/small"), 0, TASK)
        assert there.digest == here.digest
        assert all(torch.equal(w, there.weights[name]) for name, w in here.weights.items())
        assert Path(there.folder, "config.json").exists()


def test_the_digest_follows_the_weights(folder, store):
    before = starts.fetch(store, str(folder))[1]
    tensors = load_file(folder / "model.safetensors")
    assert starts.fetch(store, str(folder))[1] == before
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert starts.fetch(store, str(folder))[1] != before


def test_a_truncated_folder_is_named(folder, store):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"a model/model\.safetensors is truncated: tensor "):
        starts.load(store, Weights(ref=str(folder)), 0, TASK)


def test_a_hub_name_is_its_own_digest(store):
    assert starts.fetch(store, "someone/some-model") == ("someone/some-model", "someone/some-model")
