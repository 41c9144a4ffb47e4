"""What a verification finds: everything that is planted, and nothing in a store that is whole.

The file is longer than 350 lines because every kind of finding is planted in the same store.
"""

import hashlib
import json
import random
import re
import struct
import uuid
from pathlib import Path

import pytest
import torch

from pipelines.maintenance import snapshot_checks
from pipelines.maintenance.audit import audit, draw_targets
from pipelines.maintenance.finding import KINDS
from pipelines.maintenance.inventory import classify
from pipelines.maintenance.object_checks import check_object
from pipelines.runs.trajectories.starts import folder_digest
from pipelines.store.checksum import add_checksum
from pipelines.store.objects import Store
from pipelines.store.rollouts import Rollouts
from pipelines.store.tensors import read_header, serialise
from pipelines.store.trajectory import Trajectory
from tests.pipelines.maintenance.planted import STEPS, contents, facts, furnish, plant, weights

RUN, GOING = "runs/tiny.opd/seed-0", "runs/tiny.rlvr/seed-2"
PINNED = ("run", "end", "manifest", "weights", "moments", "part", "base")
WEIGHTS = "master.safetensors"
MOMENTS = f"{RUN}/moments/step-00000001/state.safetensors"
ROTATION = "lake/rotation/recipe=tiny.opd/seed=0/part-0.parquet"


def step(n, name=WEIGHTS, run=RUN):
    return f"{run}/step-{n:08d}/{name}"


def found(store, **how):
    """{(kind, key)} of what is found; every line names its object and says what to do."""
    findings = audit(store, **how).findings
    for one in findings:
        assert one.kind in KINDS and one.remedy and "\n" not in str(one) and str(one).startswith(one.key)
    return {(one.kind, one.key) for one in findings}


def said(store, key):
    return " ".join(f"{one.what}: {one.remedy}" for one in audit(store).findings if one.key == key)


def rewrite(store, key, **changes):
    """As another writer would: sealed again."""
    value = {name: old for name, old in json.loads(store.read(key)).items() if name != "sha256"} | changes
    store.write(key, (json.dumps(add_checksum(value), indent=1, sort_keys=True) + "\n").encode())


def flip(data, bit):
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def test_a_whole_store_is_clean(near):
    furnish(near)
    report = audit(near, deep=True)
    assert report.findings == ()
    assert (report.objects, report.snapshots, report.hashed) == (len(near.find("")), 8, 8)
    assert report.nbytes == sum(len(data) for data in contents(near).values())


def test_every_kind_of_store_is_verified_alike(any_store):
    plant(any_store, steps=(0, 1))
    assert found(any_store, deep=True) == set()
    any_store.write(step(1), any_store.read(step(1))[:-1] + b"x")
    any_store.write("notes.txt", b"")
    assert found(any_store) == {("damaged", step(1)), ("foreign", "notes.txt")}


def test_half_of_the_snapshots_are_kept_beside_another(furnished):
    manifests = [json.loads(furnished.read(step(n, "manifest.json"))) for n in STEPS]
    assert [bool(m["base"]) for m in manifests] == [False, True, True, True]


@pytest.mark.parametrize("n", [0, 3])
def test_no_bit_of_a_manifest_changes_unseen(furnished, n):
    key = step(n, "manifest.json")
    data, rng = furnished.read(key), random.Random(n)
    for byte in range(len(data)):
        furnished.write(key, flip(data, 8 * byte + rng.randrange(8)))
        assert snapshot_checks.check_snapshot(Trajectory(furnished, "tiny.opd", 0).snapshot(n), n), byte


def test_a_flipped_bit_is_found_in_whatever_is_pinned_and_named(furnished):
    rng = random.Random(7)
    for key, data in contents(furnished).items():
        if classify(key).kind not in PINNED or not data:
            continue
        text = key.endswith("run.json")
        for _ in range(3):
            place = data.index(b'"identity"') + rng.randrange(30) if text else rng.randrange(len(data))
            furnished.write(key, flip(data, 8 * place + rng.randrange(7)))
            # What a description says of the file beside it can be said of that.
            beside = key.replace("facts.json", "state.safetensors"), key.replace(".json", ".safetensors")
            assert {k for _, k in found(furnished)} & {key, *beside}, (key, place)
        furnished.write(key, data)
    assert found(furnished) == set()


def test_no_flipped_bit_changes_a_rollout_unseen(furnished):
    key, rng = f"{RUN}/rollouts/steps-00000001-00000007.parquet", random.Random(1)
    data, caught = furnished.read(key), 0
    rows = [Rollouts(furnished, RUN).read(n) for n in range(1, 8)]
    for _ in range(200):
        furnished.write(key, flip(data, rng.randrange(8 * len(data))))
        if check_object(furnished, classify(key)):
            caught += 1
        else:
            assert [Rollouts(furnished, RUN).read(n) for n in range(1, 8)] == rows
    assert caught > 50


def test_a_truncated_object_is_found(furnished):
    for key, data in contents(furnished).items():
        if len(data) > 1 and classify(key).kind not in ("model", "report"):
            furnished.write(key, data[: len(data) // 2])
            assert any(key.rpartition("/")[0] in k for _, k in found(furnished)), key
            furnished.write(key, data)


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        (step(7), ("missing", step(7))),
        (step(0), ("missing", step(0))),
        (step(3, "manifest.json"), ("missing", step(3, "manifest.json"))),
        (f"{RUN}/run.json", ("missing", f"{RUN}/run.json")),
        (MOMENTS, ("missing", MOMENTS)),
        (ROTATION, ("missing", ROTATION)),
    ],
)
def test_what_is_gone_is_named(furnished, gone, named):
    furnished.remove(gone)
    assert named in found(furnished)


def test_a_base_that_is_gone_is_named_with_what_needs_it(furnished):
    furnished.remove(f"{RUN}/step-00000000")
    key = step(0, "manifest.json")
    assert ("missing", key) in found(furnished, deep=True)
    assert f"is what {step(3, 'manifest.json')} is kept beside" in said(furnished, key)
    assert f"is named by {RUN}/end.json" in said(furnished, key)


def test_weights_replaced_by_older_ones_are_found(furnished):
    furnished.write(step(7), furnished.read(step(3)))
    assert found(furnished) == {("damaged", step(7))}
    furnished.write(step(7, "manifest.json"), furnished.read(step(3, "manifest.json")))
    assert ("damaged", step(7, "manifest.json")) in found(furnished)
    assert "is that of step 3" in said(furnished, step(7, "manifest.json"))


def test_an_older_snapshot_under_a_newer_step_is_found_by_the_end(furnished):
    """Weights and manifest changed together, and sealed again."""
    older = json.loads(furnished.read(step(3, "manifest.json")))
    furnished.write(step(7), furnished.read(step(3)))
    rewrite(furnished, step(7, "manifest.json"), **{k: older[k] for k in ("digest", "files", "tensors", "base")})
    assert found(furnished) == {("damaged", f"{RUN}/end.json"), ("damaged", f"{RUN}/measured.json")}


def test_a_renamed_tensor_is_found(furnished):
    manifest = json.loads(furnished.read(step(3, "manifest.json")))
    tensors = {name.replace("a.", "c."): entry for name, entry in manifest["tensors"].items()}
    rewrite(furnished, step(3, "manifest.json"), tensors=tensors)
    assert found(furnished) == {("damaged", step(3, "manifest.json"))}
    assert "about tensor a.weight, which is in its file and not in its manifest" in said(
        furnished, step(3, "manifest.json")
    )


@pytest.mark.parametrize("changed", [{"begin": 8}, {"shape": [8, 12]}, {"dtype": "F16"}, {"file": "other.safetensors"}])
def test_a_tensor_elsewhere_or_of_another_kind_is_found(furnished, changed):
    key = step(0, "manifest.json")
    manifest = json.loads(furnished.read(key))
    rewrite(furnished, key, tensors=manifest["tensors"] | {"a.weight": manifest["tensors"]["a.weight"] | changed})
    assert ("damaged", key) in found(furnished)


@pytest.mark.parametrize(
    "changed",
    [
        {"parent": 2},
        {"parent": 7},
        {"step": 4},
        {"deltas": 0},
        {"base": {"step": 1, "digest": "0" * 64}},
        {"files": {"../run.json": {"size": 1, "sha256": "0" * 64}}},
        {"files": {}},
        {"tensors": {"a.weight": 3}},
        {"digest": None},
        {"more": 1},
    ],
)
def test_a_manifest_that_contradicts_itself_or_others_is_found(furnished, changed):
    rewrite(furnished, step(3, "manifest.json"), **changed)
    assert step(3, "manifest.json") in {key for _, key in found(furnished)} or {
        ("missing", step(2, "manifest.json"))
    } & found(furnished)


def test_a_layout_that_is_not_read_is_named_with_the_remedy(furnished):
    rewrite(furnished, step(3, "manifest.json"), layout=9)
    assert ("layout", step(3, "manifest.json")) in found(furnished)
    told = said(furnished, step(3, "manifest.json"))
    assert "has layout 9, and this version reads layouts 1 to 3: read it with the version" in told
    with pytest.raises(ValueError, match="has layout 9; this version reads layouts 1 to 3: read it with the version"):
        Trajectory(furnished, "tiny.opd", 0).manifest(3)


def test_a_run_of_the_first_layout_is_clean_and_its_bytes_are_pinned(memory):
    """Whole snapshots, without seals or digests of moments, as the version before wrote them."""
    run = plant(memory, "old.run", extras=False, steps=(0,))
    parent, sha = None, ""
    for n in STEPS:
        data = serialise(weights(n))
        memory.write(f"{run.prefix}/step-{n:08d}/{WEIGHTS}", data)
        memory.remove(f"{run.prefix}/step-{n:08d}/manifest.json")
        places = read_header(memory, f"{run.prefix}/step-{n:08d}/{WEIGHTS}").tensors
        sha = hashlib.sha256(data).hexdigest()
        tensors = {
            name: {"file": WEIGHTS, "dtype": r.dtype, "shape": list(r.shape), "begin": r.begin, "end": r.end}
            for name, r in places.items()
        }
        manifest = {"layout": 1, "step": n, "parent": parent, "tensors": tensors}
        manifest["files"] = {WEIGHTS: {"size": len(data), "sha256": sha}}
        memory.write(f"{run.prefix}/step-{n:08d}/manifest.json", json.dumps(manifest).encode())
        parent = n
    end = {"step": 7, "digest": sha, "snapshots": list(STEPS), "evaluation": []}
    memory.write(f"{run.prefix}/end.json", json.dumps(end).encode())
    memory.write(f"{run.prefix}/run.json", json.dumps(facts("old.run", 0)).encode())
    assert found(memory, deep=True) == set()
    changed = json.loads(memory.read(f"{run.prefix}/run.json"))
    changed["identity"]["arm"] = "another"
    memory.write(f"{run.prefix}/run.json", json.dumps(changed).encode())
    assert found(memory) == {("damaged", f"{run.prefix}/run.json")}


def test_orphans_are_named(furnished):
    left = {
        f"{RUN}/step-00000099/{WEIGHTS}",
        f"{RUN}/step-00000007/.{WEIGHTS}.{uuid.uuid4().hex}",
        f"{RUN}/resume/step-00000003/state.safetensors",
        f"{GOING}/resume/step-00000009/state.safetensors",
        f".probe-{uuid.uuid4().hex}",
    }
    for key in left:
        furnished.write(key, serialise({"w": torch.ones(2)}))
    assert found(furnished) == {("orphan", key) for key in left}


def test_resume_state_is_an_orphan_once_it_is_superseded_or_the_run_complete(furnished):
    state = {
        name: furnished.read(f"{GOING}/resume/step-00000007/{name}") for name in ("facts.json", "state.safetensors")
    }
    for name, data in state.items():
        furnished.write(f"{GOING}/resume/step-00000003/{name}", data)
        furnished.write(f"{RUN}/resume/step-00000007/{name}", data)
    assert found(furnished) == {
        ("orphan", f"{prefix}/{name}")
        for prefix in (f"{GOING}/resume/step-00000003", f"{RUN}/resume/step-00000007")
        for name in state
    }


def test_foreign_objects_are_named(furnished):
    strange = {
        "notes.txt",
        f"{RUN}/model.bin",
        step(3, "other.safetensors"),
        "lake/none/recipe=a/seed=0/part-0.parquet",
    }
    for key in strange:
        furnished.write(key, b"")
    assert found(furnished) == {("foreign", key) for key in strange}


def test_a_snapshot_that_the_end_does_not_name_is_foreign(furnished):
    Trajectory(furnished, "tiny.opd", 0).commit(9, weights(9), 7)
    assert found(furnished) == {("foreign", step(9, "manifest.json"))}


def test_a_table_that_is_another_runs_is_found(furnished):
    key = "lake/training/recipe=tiny.{}/seed={}/part-0.parquet"
    furnished.write(key.format("opd", 0), furnished.read(key.format("rlvr", 2)))
    assert found(furnished) == {("damaged", key.format("opd", 0))}
    assert "holds rows of recipe tiny.rlvr" in said(furnished, key.format("opd", 0))


def test_measured_of_other_weights_is_found(furnished):
    kept = json.loads(furnished.read(f"{RUN}/measured.json"))
    kept["from"]["snapshots"]["3"] = "0" * 64
    furnished.write(f"{RUN}/measured.json", json.dumps(kept).encode())
    assert found(furnished) == {("damaged", f"{RUN}/measured.json")}


def test_a_model_that_is_not_what_runs_began_from_is_found(files):
    files.write("models/m/config.json", b"{}")
    files.write("models/m/model.safetensors", serialise(weights(0)))
    began = facts("tiny.sft", 0, start=folder_digest(Path(files.path("models/m"))), kind="weights", ref="models/m")
    plant(files, "tiny.sft", extras=False, start=began)
    assert found(files) == set()
    files.write("models/m/model.safetensors", serialise(weights(1)))
    assert found(files) == {("damaged", "models/m")}


def test_a_run_that_began_from_other_weights_than_are_there_is_found(memory):
    source = plant(memory, "tiny.sft", extras=False)
    began = facts("tiny.opd", 0, start=source.digest(7), kind="final", recipe="tiny.sft", seed=None)
    plant(memory, "tiny.opd", extras=False, start=began)
    assert found(memory) == set()
    plant(memory, "tiny.rlvr", extras=False, start=began | {"inputs": {"start": "f" * 64}})
    assert found(memory) == {("damaged", "runs/tiny.sft/seed-0/step-00000007/manifest.json")}


def test_only_decoding_finds_what_was_wrong_before_it_was_hashed(furnished):
    """A code that does not decode, hashed and sealed as it is: its manifest is right about the bytes."""
    data = bytearray(furnished.read(step(3)))
    (length,) = struct.unpack("<Q", data[:8])
    data[8 + length] ^= 1
    furnished.write(step(3), bytes(data))
    files = {WEIGHTS: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    rewrite(furnished, step(3, "manifest.json"), files=files)
    assert found(furnished) == set()
    assert found(furnished, deep=True) == {("damaged", step(3))}


def test_one_run_can_be_looked_at_alone(furnished):
    furnished.write(step(7), b"")
    furnished.write("notes.txt", b"")
    assert found(furnished, runs=[("tiny.rlvr", 2)]) == set()
    assert found(furnished, runs=[("tiny.rlvr", 2), ("tiny.opd", 0)]) == {("damaged", step(7))}
    report = audit(furnished, runs=[("tiny.rlvr", 2)])
    assert (report.snapshots, report.hashed) == (4, 4)
    with pytest.raises(ValueError, match=r"holds no run tiny\.opd seed 1; it has seed 0$"):
        audit(furnished, runs=[("tiny.opd", 1)])
    with pytest.raises(ValueError, match=r"holds no run tiny\.no seed 0; it has tiny\.opd, tiny\.rlvr$"):
        audit(furnished, runs=[("tiny.no", 0)])


def test_a_sample_is_the_same_for_a_seed_and_all_of_it_in_the_end():
    targets = [f"{n}" for n in range(100)]
    assert (
        draw_targets(targets, None, 0)
        == targets
        == sorted(draw_targets(targets, 1000, 3), key=int)
        == sorted(draw_targets(targets, 1.0, 3), key=int)
    )
    assert draw_targets(targets, 7, 3) == draw_targets(targets, 7, 3) != draw_targets(targets, 7, 4)
    assert [len(draw_targets(targets, part, 0)) for part in (7, 0.25, 0.001)] == [7, 25, 1]
    assert {target for seed in range(100) for target in draw_targets(targets, 0.1, seed)} == set(targets)


def test_a_sample_reads_less_and_names_are_looked_at_all_the_same(furnished):
    furnished.write("notes.txt", b"")
    furnished.remove(step(7))
    few, every = audit(furnished, sample=2, seed=0), audit(furnished)
    assert few.read < every.read and few.objects == every.objects
    assert ("foreign", "notes.txt") in {(f.kind, f.key) for f in few.findings}


def test_progress_ends_at_all_of_it(furnished):
    heard = []
    report = audit(furnished, progress=lambda done, of: heard.append((done, of)))
    assert heard == sorted(heard) and heard[-1] == (report.read, report.read)


def test_an_object_that_goes_while_the_store_is_read_is_named(furnished, monkeypatch):
    listing = Store.list_objects
    monkeypatch.setattr(Store, "list_objects", lambda *a: (listing(*a), furnished.remove(step(3)))[0])
    assert ("missing", step(3, "manifest.json")) in found(furnished)


def test_large_objects_are_read_in_pieces(furnished, monkeypatch):
    monkeypatch.setattr(snapshot_checks, "CHUNK", 100)
    assert found(furnished) == set()
    furnished.write(step(3), furnished.read(step(3))[:-1] + b"x")
    assert found(furnished) == {("damaged", step(3))}
    assert re.search(
        r"has SHA-256 [0-9a-f]{12}, and its manifest says [0-9a-f]{12}: bring it back", said(furnished, step(3))
    )


def test_weights_that_are_kept_as_bf16_are_found_whole_and_a_flipped_byte_of_them_is_not(memory):
    run = Trajectory(memory, "tiny.opd", 0)
    run.commit(0, {"w": torch.linspace(-1, 1, 64).bfloat16().float()}, None)
    key = f"{run.prefix}/step-00000000/master.safetensors"
    assert not [finding for finding in audit(memory, deep=True).findings if finding.kind == "damaged"]
    data = bytearray(memory.read(key))
    data[-1] ^= 1
    memory.write(key, bytes(data))
    assert [finding.key for finding in audit(memory, deep=True).findings if finding.kind == "damaged"] == [key]
