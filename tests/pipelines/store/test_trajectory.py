"""A run in the store: snapshots are committed whole, resumed from, completed once, and damage is named.

The file is longer than 350 lines because commit, resume and completion are tried on the same planted run.
"""

import hashlib
import json
import threading
import uuid

import pytest
import torch

from pipelines.store import codec
from pipelines.store.objects import Store
from pipelines.store.snapshot import LAYOUT
from pipelines.store.tensors import HALF, serialise
from pipelines.store.trajectory import DELTAS, Trajectory


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
    assert (manifest["layout"], manifest["step"], manifest["parent"]) == (LAYOUT, 5, 2)
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
    stop = lambda self, key, *parts: (
        (_ for _ in ()).throw(KeyboardInterrupt) if "manifest" in key else create(self, key, *parts)
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

    def interrupted(self, key, *parts):
        if key.endswith(moment) and not lost:
            lost.append(None)
            try:
                run.commit(5, weights(2), None)
                lost[0] = 1
            except ValueError:
                lost[0] = 2
        create(self, key, *parts)

    monkeypatch.setattr(Store, "create", interrupted)
    try:
        run.commit(5, weights(1), None)
    except ValueError:
        assert lost == [1]
    else:
        assert lost == [2]
    assert run.verify(5) == []
    assert equal(run.refs(5), weights({1: 2, 2: 1}[lost[0]]))


def moved(step):
    """A model whose large matrix moves a little at every step, with a new tensor from step 2 on."""
    generator = torch.Generator().manual_seed(0)
    large = 0.02 * torch.randn(64, 64, generator=generator)
    for at in range(step):
        large = large + 1e-6 * torch.randn(64, 64, generator=torch.Generator().manual_seed(at + 1))
    found = {"large.weight": large, "none.weight": torch.zeros(0, 3), "norm.weight": torch.full((3,), float(step))}
    return found | ({"new.weight": torch.ones(2, 2)} if step > 1 else {})


def train(trajectory, steps):
    for step in range(steps):
        trajectory.commit(step, moved(step), step - 1 if step else None)


def test_snapshots_are_kept_beside_a_whole_one_and_read_back(trajectory):
    train(trajectory, 4)
    for step in range(4):
        assert equal(trajectory.refs(step), moved(step)) and trajectory.verify(step) == []
        refs = trajectory.refs(step)
        assert (refs["large.weight"].code is None) == (step == 0)
        assert all(refs[name].code in (None, HALF) for name in refs if name != "large.weight"), "no smaller beside it"
        assert (refs["large.weight"].dtype, refs["large.weight"].shape) == ("F32", (64, 64))
    sizes = [trajectory.manifest(step)["files"]["master.safetensors"]["size"] for step in range(4)]
    assert all(size < 0.6 * sizes[0] for size in sizes[1:])


def test_a_snapshot_has_the_digest_of_its_weights_however_it_is_kept(run, tmp_path):
    train(run, 3)
    alone = Trajectory(Store(f"file://{tmp_path}/alone"), "tiny.opd", 3)
    for step in range(3):
        assert alone.commit(step, moved(step), None) == run.digest(step)
    assert run.manifest(2)["base"] == {"step": 0, "digest": run.digest(0)}


def test_every_sixteenth_snapshot_is_whole_and_the_next_ones_are_beside_it(run):
    train(run, 2 * (DELTAS + 1) + 1)
    bases = [(run.manifest(step)["base"] or {}).get("step") for step in run.steps()]
    whole = DELTAS + 1
    assert bases == [None, *[0] * DELTAS, None, *[whole] * DELTAS, None]
    assert equal(run.refs(2 * DELTAS), moved(2 * DELTAS))


def test_a_base_that_is_another_or_gone_is_an_error_and_not_a_number(run):
    train(run, 2)
    manifest = f"{run.prefix}/step-00000000/manifest.json"
    kept = run.store.read(manifest)
    other = run.manifest(0) | {"digest": "f" * 64}
    other["files"]["master.safetensors"]["sha256"] = "f" * 64
    run.store.write(manifest, json.dumps(other).encode())
    with pytest.raises(ValueError, match=r"step-00000001 is kept beside .*step-00000000 .* holds ffffffffffff: bring"):
        run.refs(1)
    run.store.remove(manifest)
    with pytest.raises(ValueError, match=r"step-00000000 .* holds nothing: bring it back"):
        run.refs(1)
    run.store.write(manifest, kept)
    assert equal(run.refs(1), moved(1))


def test_a_code_that_was_damaged_names_its_file_and_tensor(run):
    train(run, 2)
    key = f"{run.prefix}/step-00000001/master.safetensors"
    place = run.manifest(1)["tensors"]["large.weight"]
    data = bytearray(run.store.read(key))
    data[place["begin"]] ^= 1
    run.store.write(key, bytes(data))
    with pytest.raises(ValueError, match=rf"^{key}: tensor large\.weight is no "):
        run.refs(1)["large.weight"].read()


@pytest.mark.parametrize(("layout", "later"), [(1, ("digest", "base", "deltas")), (2, ())])
def test_snapshots_of_the_layouts_before_are_read_and_gone_on_from(run, monkeypatch, layout, later):
    with monkeypatch.context() as before:
        before.setattr(codec, "as_exact_bf16", lambda tensor: None)
        run.commit(0, served(0), None)
    manifest = {key: value for key, value in run.manifest(0).items() if key not in later}
    run.store.write(f"{run.prefix}/step-00000000/manifest.json", json.dumps(manifest | {"layout": layout}).encode())
    assert equal(run.refs(0), served(0)) and run.verify(0) == []
    digest = run.digest(0)
    run.commit(1, moved(1), 0)
    assert run.manifest(1)["base"] == {"step": 0, "digest": digest} and equal(run.refs(1), moved(1))


def test_weights_that_an_earlier_layout_left_without_a_manifest_are_committed_as_they_lie(run):
    run.store.create(f"{run.prefix}/step-00000000/master.safetensors", serialise(served(0)))
    digest = run.commit(0, served(0), None)
    assert digest == run.digest(0) == run.manifest(0)["files"]["master.safetensors"]["sha256"]
    assert not any("code" in entry for entry in run.manifest(0)["tensors"].values())
    assert equal(run.refs(0), served(0)) and run.verify(0) == []
    run.store.create(f"{run.prefix}/step-00000016/master.safetensors", serialise(served(1)))
    with pytest.raises(ValueError, match="holds other weights"):
        run.commit(16, served(2), None)
    assert run.steps() == [0]


def served(step):
    """The same model in numbers that bf16 holds."""
    return {name: tensor.bfloat16().float() for name, tensor in moved(step).items()}


def test_weights_that_bf16_holds_cost_half_and_come_back_as_fp32(trajectory):
    plain = serialise(served(0))
    assert trajectory.commit(0, served(0), None) == hashlib.sha256(plain).hexdigest()
    size = trajectory.manifest(0)["files"]["master.safetensors"]["size"]
    assert size - 2 * (64 * 64 + 3) < 400
    refs = trajectory.refs(0)
    assert {name: ref.code for name, ref in refs.items()} == {
        "large.weight": HALF,
        "none.weight": None,
        "norm.weight": HALF,
    }
    assert all(ref.dtype == "F32" and ref.read().dtype == torch.float32 for ref in refs.values())
    assert equal(refs, served(0)) and trajectory.verify(0) == []
    large = served(0)["large.weight"].reshape(-1)
    assert torch.equal(refs["large.weight"].entries(70, 200), large[70:200])
    for step in (1, 2):
        trajectory.commit(step, moved(step), step - 1)
        assert equal(trajectory.refs(step), moved(step)) and trajectory.manifest(step)["base"]["step"] == 0
        assert torch.equal(
            trajectory.refs(step)["large.weight"].entries(9, 99), moved(step)["large.weight"].reshape(-1)[9:99]
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest | {"layout": 2},
        lambda manifest: manifest["tensors"]["large.weight"].update(dtype="F16"),
        lambda manifest: manifest["tensors"]["large.weight"].update(dtype="BF16"),
        lambda manifest: manifest["tensors"]["large.weight"].update(shape=[64, 63]),
        lambda manifest: manifest["tensors"]["large.weight"].update(code="bf16/2"),
        lambda manifest: manifest["tensors"]["large.weight"].update(code=None),
    ],
)
def test_a_manifest_that_cannot_be_of_bf16_is_refused(run, change):
    run.commit(0, served(0), None)
    manifest = run.manifest(0)
    found = change(manifest) or manifest
    run.store.write(f"{run.prefix}/step-00000000/manifest.json", json.dumps(found).encode())
    with pytest.raises(ValueError, match=r"manifest\.json has an impossible .*large\.weight"):
        run.refs(0)


def test_a_manifest_of_another_layout_is_refused(run):
    run.commit(5, weights(), None)
    run.store.write(f"{run.prefix}/step-00000005/manifest.json", json.dumps(run.manifest(5) | {"layout": 4}).encode())
    with pytest.raises(ValueError, match="has layout 4; this version reads layouts 1 to 3"):
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
    assert not trajectory.is_registered()
    with pytest.raises(FileNotFoundError):
        trajectory.run()
    assert trajectory.register(facts()) == facts()
    later = facts() | {"provenance": {"host": "there"}}
    assert trajectory.register(later) == facts() == trajectory.run()
    assert trajectory.is_registered()


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


def test_a_state_whose_checksum_has_another_name_is_damaged(run):
    run.save_resume(2, weights(2), {"parent": 1})
    key = f"{run.prefix}/resume/step-00000002/facts.json"
    run.store.write(key, run.store.read(key).replace(b'"sha256"', b'"sha257"'))
    with pytest.raises(ValueError, match=r"facts\.json is not what was written there; delete its folder"):
        run.load_resume()


@pytest.mark.parametrize("name", ["facts.json", "state.safetensors"])
def test_a_state_that_is_not_what_was_saved_is_one_line_and_nothing_goes_on_from_it(name, run):
    run.save_resume(2, weights(2), {"parent": 1})
    run.save_moments(2, 2, weights(2))
    for kind, load, remedy in (
        ("resume", run.load_resume, "delete its folder: the run goes on"),
        ("moments", lambda: run.load_moments(2), "opd import"),
    ):
        key = f"{run.prefix}/{kind}/step-00000002/{name}"
        data = bytearray(run.store.read(key))
        assert load() is not None
        data[-10] ^= 1
        run.store.write(key, bytes(data))
        with pytest.raises(ValueError) as error:
            load()
        line = str(error.value)
        assert "\n" not in line and key in line and remedy in line


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
        run.require_steps(3)
    for step in (0, 2):
        run.commit(step, weights(step), None)
    run.require_steps(2)
    with pytest.raises(ValueError, match=r"has no snapshot of step 3; it has those of steps 0, 2$"):
        run.require_steps(3)


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


def test_a_tensor_of_one_entry_is_kept_as_bf16(run):
    tensors = {"scalar": torch.tensor(0.5), "bias": torch.tensor([2.0]), "weight": torch.tensor([[1.0, 3.0]])}
    run.commit(0, tensors, None)
    assert equal(run.refs(0), tensors) and all(ref.code == HALF for ref in run.refs(0).values())
