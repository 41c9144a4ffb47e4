"""What is not what was committed is found before a number is computed from it, whoever asks for the number."""

import pytest
import torch

from opd_ops.recipe import FinalOf, SnapshotOf
from pipelines.runs.external.imports import measure_import, plan_import
from pipelines.runs.geometry.measuring import is_measured, measure_run
from pipelines.runs.trajectories import starts
from pipelines.store import integrity
from pipelines.store.payload import WEIGHTS
from pipelines.store.trajectory import Trajectory
from tests.pipelines.runs.conftest import CUTS, drifted, model
from tests.pipelines.runs.mini import TASK

Q = b"self_attn.q_proj"
# The snapshots of the run, and what each is kept beside: itself, where it is whole.
BESIDE = {0: 0, 1: 1, 2: 0, 3: 0}
PARENTS = {0: None, 1: None, 2: 0, 3: 2}


@pytest.fixture
def recipe(arm):
    return arm("pre")


@pytest.fixture
def run(store, recipe):
    """A complete run: two whole snapshots of one size, and two that are kept beside the first."""
    trajectory = Trajectory(store, recipe.name, 0)
    identity = {"identity": recipe.identity(), "fingerprint": recipe.fingerprint()}
    trajectory.register(identity | {"inputs": {}, "model": {"model_type": "qwen3"}, "provenance": {}})
    for step, parent in PARENTS.items():
        trajectory.commit(step, {n: w.float() for n, w in (drifted(step) if step else model()).items()}, parent)
        base = trajectory.manifest(step)["base"]
        assert (base["step"] if base else step) == BESIDE[step]
    trajectory.finish({"step": 3, "digest": trajectory.digest(3), "snapshots": sorted(BESIDE), "evaluation": []})
    return trajectory


def payload(run, step):
    return f"{run.snapshot(step).folder}/{WEIGHTS}"


def flipped(run, key):
    """One bit is another: of the last tensor, or of the number of a manifest's parent."""
    data = bytearray(run.store.read(key))
    data[data.index(b'"parent": ') + 10 if key.endswith(".json") else -1] ^= 1
    run.store.write(key, bytes(data))
    return key


def older(run, step):
    """The weights of step 0, which are as long."""
    key = payload(run, step)
    data = run.store.read(payload(run, 0))
    assert len(data) == run.store.size(key)
    run.store.write(key, data)
    return key


def renamed(run, step):
    """A tensor has another's name, and all else is as it was."""
    key = payload(run, step)
    data = run.store.read(key)
    assert data.count(Q) == 1
    run.store.write(key, data.replace(Q, Q.replace(b"q_", b"z_")))
    return key


def gone(run, step):
    run.store.remove(payload(run, step))
    return payload(run, step)


FAULTS = {
    "a byte of a manifest": (lambda run: flipped(run, run.snapshot(2).key), "is not what was written there"),
    "a byte of a payload": (lambda run: flipped(run, payload(run, 3)), "has SHA-256"),
    "a byte of what others are kept beside": (lambda run: flipped(run, payload(run, 0)), "has SHA-256"),
    "an older shard": (lambda run: older(run, 1), "has SHA-256"),
    "a renamed tensor": (lambda run: renamed(run, 2), "has SHA-256"),
    "a payload that is gone": (lambda run: gone(run, 3), "is missing"),
}


def told(error, key, words):
    """One line that names the object, what is wrong with it, and the remedy."""
    line = str(error.value)
    assert "\n" not in line
    for part in (key, words, "opd import"):
        assert part in line


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_measured_of_a_run_that_is_not_what_was_committed(fault, run, recipe, taken):
    damage, words = FAULTS[fault]
    key = damage(run)
    before = run.store.find("")
    with pytest.raises(ValueError) as error:
        measure_run(run.store, recipe, 0, CUTS, serial=True)
    told(error, key, words)
    assert taken == [] and run.store.find("") == before


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_measured_of_snapshots_given_as_checkpoints(fault, run, taken):
    damage, words = FAULTS[fault]
    key = damage(run)
    where = {step: f"{run.store.uri}/{run.snapshot(step).folder}" for step in BESIDE}
    with pytest.raises(ValueError) as error:
        imported = plan_import(run.store, where[0], [(step, where[step]) for step in (1, 2, 3)], CUTS, "x")
        measure_import(imported, serial=True)
    line = str(error.value)
    assert "\n" not in line and key.rpartition("/")[0].rpartition("/")[2] in line
    assert words in line or "lacks" in line  # files that are gone are missed by whoever opens a checkpoint
    assert taken == [] and run.store.list("lake") == []


@pytest.mark.parametrize("fault", ["a byte of a payload", "a byte of what others are kept beside"])
@pytest.mark.parametrize("kind", [FinalOf, SnapshotOf])
def test_nothing_is_trained_from_weights_that_are_not_what_was_committed(kind, fault, run, recipe):
    damage, words = FAULTS[fault]
    key = damage(run)
    start = kind(recipe=recipe.name) if kind is FinalOf else kind(recipe=recipe.name, step=3)
    with pytest.raises(ValueError) as error:
        starts.load(run.store, start, 0, TASK)
    told(error, key, words)


def test_what_is_mended_is_measured(run, recipe, taken):
    key = payload(run, 3)
    whole = run.store.read(key)
    flipped(run, key)
    with pytest.raises(ValueError, match="has SHA-256"):
        measure_run(run.store, recipe, 0, CUTS, serial=True)
    run.store.write(key, whole)
    assert measure_run(run.store, recipe, 0, CUTS, serial=True) == []
    assert is_measured(run.store, recipe, 0, CUTS) and taken


@pytest.fixture
def hashed(monkeypatch):
    """Keys of the files that are hashed from now on."""
    keys, hash_file = [], integrity.hash_file
    monkeypatch.setattr(integrity, "hash_file", lambda file: (keys.append(file.key), hash_file(file))[1])
    return keys


def test_a_file_is_hashed_once_and_again_where_it_was_written_again(run, recipe, hashed):
    measure_run(run.store, recipe, 0, CUTS, serial=True)
    assert sorted(hashed) == [payload(run, step) for step in BESIDE]
    integrity.verified_refs(run, 3)
    assert len(hashed) == len(BESIDE)
    run.store.write(payload(run, 0), run.store.read(payload(run, 0)))
    integrity.verified_refs(run, 3)
    assert hashed[len(BESIDE) :] == [payload(run, 0)]


def test_the_views_of_updates_are_proven_too(store, hashed):
    run = Trajectory(store, "mini.kept", 0)
    run.commit(0, {"w.weight": torch.ones(40, 24)}, None)
    run.commit(1, {"w.weight": torch.ones(40, 24) + 1e-3}, 0, "bf16-update")
    integrity.verified_refs(run, 1)
    folder = run.snapshot(1).folder
    assert sorted(hashed) == [payload(run, 0), f"{folder}/bf16.safetensors", payload(run, 1)]
    flipped(run, f"{folder}/bf16.safetensors")
    with pytest.raises(ValueError, match=r"bf16\.safetensors has SHA-256"):
        integrity.verified_refs(run, 1)


def test_checkpoints_from_elsewhere_have_no_manifest(folders, store, hashed):
    assert measure_import(plan_import(store, folders["base"], [(1, folders["one"])], CUTS, "x"), serial=True) == []
    assert hashed == []


def test_seconds_of_hashing_are_told(run):
    refs = run.refs(0)
    wall, cpu = integrity.verify_files(integrity.list_files(refs.values()))
    assert 0 < wall < 10 and 0 <= cpu < 10
    assert integrity.verify_files([])[1] < 0.1
