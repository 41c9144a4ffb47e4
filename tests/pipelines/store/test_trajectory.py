import json
import threading
import uuid

import pytest
import torch

from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(4, 3, generator=generator) for name in ("a.weight", "b.weight")}


def facts(**identity):
    return {
        "identity": {"arm": "opd", "optimizer": {"learning_rate": 1e-3}} | identity,
        "fingerprint": json.dumps(identity),
        "inputs": {"start": "0123"},
        "provenance": {"host": "here"},
    }


@pytest.fixture
def trajectory(any_store):
    """Of every kind of store in turn."""
    return Trajectory(any_store, "tiny.opd", 3)


@pytest.fixture
def run(tmp_path):
    """On files."""
    return Trajectory(Store(f"file://{tmp_path}"), "tiny.opd", 3)


def equal(refs, tensors):
    return refs.keys() == tensors.keys() and all(torch.equal(refs[name].read(), tensors[name]) for name in tensors)


def test_a_committed_snapshot_reads_back(trajectory):
    digest = trajectory.commit(5, weights(), parent=None)
    trajectory.commit(10, weights(1), parent=5)
    assert trajectory.steps() == [5, 10]
    assert equal(trajectory.refs(5), weights()) and equal(trajectory.refs(10), weights(1))
    assert trajectory.digest(5) == digest != trajectory.digest(10)
    assert [trajectory.manifest(step)["parent"] for step in (5, 10)] == [None, 5]
    assert trajectory.verify(5) == trajectory.verify(10) == []


def test_steps_are_sorted_by_number(run):
    for step in (100, 9, 0, 20):
        run.commit(step, weights(), None)
    assert run.steps() == [0, 9, 20, 100]


def test_a_manifest_describes_every_byte_of_the_snapshot(run):
    run.commit(5, weights(), parent=2)
    manifest = run.manifest(5)
    data = run.store.read(f"{run.prefix}/step-00000005/master.safetensors")
    assert (manifest["layout"], manifest["step"], manifest["parent"]) == (1, 5, 2)
    assert manifest["files"]["master.safetensors"]["size"] == len(data)
    assert list(manifest["tensors"]) == ["a.weight", "b.weight"]
    for name, t in manifest["tensors"].items():
        assert (t["dtype"], t["shape"], t["end"] - t["begin"]) == ("F32", [4, 3], 48)
        assert data[t["begin"] : t["end"]] == weights()[name].numpy().tobytes()


def test_a_snapshot_exists_if_and_only_if_its_manifest_does(trajectory):
    trajectory.commit(5, weights(), None)
    manifest = f"{trajectory.prefix}/step-00000005/manifest.json"
    kept = trajectory.store.read(manifest)
    trajectory.store.remove(manifest)
    assert trajectory.steps() == []
    for ask in (trajectory.manifest, trajectory.digest, trajectory.refs, trajectory.verify):
        with pytest.raises(ValueError, match=r"^runs/tiny\.opd/seed-3 has no committed snapshot of step 5$"):
            ask(5)
    trajectory.store.write(manifest, kept)
    assert trajectory.steps() == [5]


def test_weights_without_a_manifest_are_committed_by_a_rerun(run, monkeypatch):
    create = Store.create
    stop = lambda self, key, data: (
        (_ for _ in ()).throw(KeyboardInterrupt) if "manifest" in key else create(self, key, data)
    )
    monkeypatch.setattr(Store, "create", stop)
    with pytest.raises(KeyboardInterrupt):
        run.commit(5, weights(), None)
    monkeypatch.undo()
    assert run.store.list(f"{run.prefix}/step-00000005") == ["master.safetensors"]
    assert run.steps() == []
    run.commit(5, weights(), None)
    assert run.steps() == [5] and run.verify(5) == []


def test_committing_the_same_bytes_again_is_no_error_and_no_change(trajectory):
    first = trajectory.commit(5, weights(), None)
    before = trajectory.manifest(5)
    assert trajectory.commit(5, weights(), None) == first
    assert trajectory.manifest(5) == before


def test_committing_other_bytes_is_refused(trajectory):
    trajectory.commit(5, weights(), None)
    with pytest.raises(
        ValueError, match=r"runs/tiny\.opd/seed-3/step-00000005 holds other weights \(\w{12}, now \w{12}\)"
    ):
        trajectory.commit(5, weights(1), None)
    assert equal(trajectory.refs(5), weights())


def test_racing_committers_of_the_same_bytes_all_succeed(run):
    digests, barrier = [], threading.Barrier(4)

    def commit(step):
        barrier.wait()
        digests.append(run.commit(step, weights(step), None))

    for step in range(5):
        digests.clear()
        threads = [threading.Thread(target=commit, args=(step,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(digests) == 4 and set(digests) == {run.digest(step)}
        assert run.verify(step) == []


@pytest.mark.parametrize("moment", ["master.safetensors", "manifest.json"])
def test_of_two_committers_of_other_bytes_one_wins_whole(moment, run, monkeypatch):
    """The second commits at the very moment before the first creates one of its two objects."""
    create, lost = Store.create, []

    def interrupted(self, key, data):
        if key.endswith(moment) and not lost:
            lost.append(None)
            try:
                run.commit(5, weights(2), None)
                lost[0] = 1
            except ValueError:
                lost[0] = 2
        create(self, key, data)

    monkeypatch.setattr(Store, "create", interrupted)
    try:
        run.commit(5, weights(1), None)
    except ValueError:
        assert lost == [1]
    else:
        assert lost == [2]
    assert run.verify(5) == []
    assert equal(run.refs(5), weights({1: 2, 2: 1}[lost[0]]))


def test_a_manifest_of_another_layout_is_refused(run):
    run.commit(5, weights(), None)
    run.store.write(f"{run.prefix}/step-00000005/manifest.json", json.dumps(run.manifest(5) | {"layout": 2}).encode())
    with pytest.raises(ValueError, match="has layout 2; this version reads layout 1"):
        run.refs(5)


def test_verification_finds_a_flipped_byte_and_a_missing_file(trajectory):
    trajectory.commit(5, weights(), None)
    key = f"{trajectory.prefix}/step-00000005/master.safetensors"
    data = bytearray(trajectory.store.read(key))
    data[-1] ^= 1
    trajectory.store.write(key, bytes(data))
    assert trajectory.verify(5) == [f"{key} differs from its manifest"]
    trajectory.store.write(key, bytes(data[:-1]))
    assert trajectory.verify(5) == [f"{key} differs from its manifest"]
    trajectory.store.remove(key)
    assert trajectory.verify(5) == [f"{key} is missing"]


def test_a_run_is_registered_once_and_keeps_its_first_facts(trajectory):
    assert not trajectory.registered()
    with pytest.raises(FileNotFoundError):
        trajectory.run()
    assert trajectory.register(facts()) == facts()
    later = facts() | {"provenance": {"host": "there"}}
    assert trajectory.register(later) == facts() == trajectory.run()
    assert trajectory.registered()


def test_another_recipe_is_refused_by_its_fields(trajectory):
    trajectory.register(facts())
    other = facts(optimizer={"learning_rate": 2e-3}, kind="new")
    with pytest.raises(ValueError, match=r'\(kind: null -> "new"; optimizer\.learning_rate: 0\.001 -> 0\.002\)'):
        trajectory.register(other)
    assert trajectory.run() == facts()


def test_other_models_are_refused_by_name(trajectory):
    trajectory.register(facts())
    with pytest.raises(ValueError, match=r'made from other models \(start: "0123" -> "4567"\)'):
        trajectory.register(facts() | {"inputs": {"start": "4567"}})


def test_runs_of_other_seeds_and_recipes_are_other_runs(any_store):
    for recipe, seed in (("tiny.opd", 1), ("tiny.opd", 10), ("tiny.opd2", 1)):
        Trajectory(any_store, recipe, seed).register(facts(seed=seed, recipe=recipe))
        Trajectory(any_store, recipe, seed).commit(seed, weights(), None)
    assert Trajectory(any_store, "tiny.opd", 1).steps() == [1]
    assert Trajectory(any_store, "tiny.opd", 10).steps() == [10]


def test_the_newest_resume_state_is_kept_and_the_others_pruned(trajectory):
    assert trajectory.load_resume() is None
    for step in (2, 4, 10):
        trajectory.save_resume(step, weights(step), {"parent": step - 1})
    step, tensors, found = trajectory.load_resume()
    assert (step, found) == (10, {"parent": 9})
    assert all(torch.equal(tensors[name], w) for name, w in weights(10).items())
    assert trajectory.store.list(f"{trajectory.prefix}/resume") == ["step-00000010"]
    assert trajectory.steps() == []


def test_numbers_survive_a_resume_state_exactly(run):
    numbers = {"loss": 0.1 + 0.2, "tiny": 5e-324, "count": 2**60, "none": None}
    run.save_resume(1, {"x": torch.tensor([1e-45, float("nan")])}, {"rows": [numbers]})
    assert run.load_resume()[2] == {"rows": [numbers]}


def test_a_resume_state_without_its_facts_does_not_count(run):
    run.save_resume(2, weights(2), {"parent": 1})
    run.store.write(f"{run.prefix}/resume/step-00000004/state.safetensors", b"half")
    assert run.load_resume()[0] == 2
    run.store.remove(f"{run.prefix}/resume/step-00000002/facts.json")
    assert run.load_resume() is None


def test_the_newest_of_two_resume_states_counts(run, monkeypatch):
    monkeypatch.setattr(Store, "remove", lambda *_: None)  # a crash came before the pruning
    for step in (9, 10, 100):
        run.save_resume(step, weights(step), {})
    assert run.load_resume()[0] == 100


def test_a_crash_while_saving_keeps_the_previous_resume_state(run, monkeypatch):
    run.save_resume(2, weights(2), {"parent": 1})
    write = Store.write
    stop = lambda self, key, data: (
        (_ for _ in ()).throw(KeyboardInterrupt) if "facts" in key else write(self, key, data)
    )
    monkeypatch.setattr(Store, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        run.save_resume(4, weights(4), {"parent": 3})
    monkeypatch.undo()
    assert run.load_resume()[0] == 2
    run.save_resume(4, weights(4), {"parent": 3})
    assert run.load_resume()[0] == 4


def test_a_finished_run_has_its_end_and_no_resume_state(trajectory):
    trajectory.register(facts())
    trajectory.commit(5, weights(), None)
    trajectory.save_resume(5, weights(), {})
    assert trajectory.end() is None
    trajectory.finish({"step": 5})
    assert trajectory.end() == {"step": 5}
    assert trajectory.load_resume() is None
    assert trajectory.store.list(trajectory.prefix) == ["end.json", "run.json", "step-00000005"]
    assert trajectory.steps() == [5]


def test_kept_moments_outlive_the_run_and_are_no_snapshot(trajectory):
    trajectory.commit(5, weights(), None)
    trajectory.save_moments(5, 7, weights(3))
    trajectory.save_resume(5, weights(), {})
    trajectory.finish({"step": 5})
    steps, tensors = trajectory.load_moments(5)
    assert steps == 7 and tensors.keys() == weights(3).keys()
    assert all(torch.equal(tensors[name], w) for name, w in weights(3).items())
    assert trajectory.steps() == [5]
    assert trajectory.store.list(f"{trajectory.prefix}/moments/step-00000005") == ["facts.json", "state.safetensors"]


def test_moments_count_once_their_facts_are_there(run):
    run.store.write(f"{run.prefix}/moments/step-00000004/state.safetensors", b"half")
    message = rf"^{run.prefix} kept no optimizer state of step 4: train it with resources\.keep_moments=\(4,\), "
    with pytest.raises(ValueError, match=message):
        run.load_moments(4)


def test_an_absent_snapshot_names_those_that_are_there(run):
    with pytest.raises(ValueError, match=r"has no snapshot of step 3; it has those of steps none: train it first$"):
        run.require(3)
    for step in (0, 2):
        run.commit(step, weights(step), None)
    run.require(2)
    with pytest.raises(ValueError, match=r"has no snapshot of step 3; it has those of steps 0, 2$"):
        run.require(3)


def test_a_run_is_complete_before_its_resume_state_goes(run, monkeypatch):
    run.save_resume(5, weights(), {})
    monkeypatch.setattr(Store, "remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run.finish({"step": 5})
    assert run.end() == {"step": 5}


def test_a_trajectory_travels_with_its_references():
    import pickle

    store = Store(f"memory://{uuid.uuid4().hex}")
    run = Trajectory(store, "tiny.opd", 3)
    run.commit(0, weights(), None)
    assert pickle.loads(pickle.dumps(run)) == run
    ref = pickle.loads(pickle.dumps(run.refs(0)["a.weight"]))
    assert torch.equal(ref.read(), weights()["a.weight"])
