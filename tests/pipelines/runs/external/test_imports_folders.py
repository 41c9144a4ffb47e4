"""The rows of checkpoints do not depend on how and where their folders are stored, and what is absent is said."""

import pytest
import torch

from pipelines.runs.external.checkpoint_folder import list_checkpoints
from pipelines.runs.external.imports import measure_import, plan_import
from pipelines.runs.geometry import tasks
from pipelines.store.objects import Store
from pipelines.store.tensors import serialise
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Measurement
from tests.pipelines.runs.conftest import (
    CUTS,
    EMBED,
    HEAD,
    KEY,
    NORM,
    OUT,
    TIED,
    UNTIED,
    W0,
    M,
    N,
    Q,
    V,
    drifted,
    everything,
    model,
    record,
    rows,
    run,
    same,
    save,
)


def test_sharded_folders_give_the_same_rows(tmp_path, folders):
    whole, parts = Store(f"file://{tmp_path}/whole"), Store(f"file://{tmp_path}/parts")
    run(whole, folders["base"], [(1, folders["one"])])
    run(parts, save(tmp_path / "b", model(), shards=3), [(1, save(tmp_path / "s", drifted(1), shards=2))])
    assert same(everything(whole), everything(parts))


def test_a_memory_store_takes_the_tables(folders, tmp_path, store):
    memory = Store(f"memory://{tmp_path.name}/{id(folders)}")
    run(memory, folders["base"], [(1, folders["one"])])
    run(store, folders["base"], [(1, folders["one"])])
    assert same(everything(memory), everything(store))
    assert plan_import(memory, folders["base"], [(1, folders["one"])], CUTS, "x").fresh


def test_ray_gives_the_same_rows(folders, tmp_path, store, workers):
    serial = Store(f"file://{tmp_path}/serial")
    given = [(1, folders["one"]), (2, folders["two"])]
    run(serial, folders["base"], given)
    assert measure_import(plan_import(store, folders["base"], given, CUTS, "x")) == []
    assert same(everything(serial), everything(store))


def test_relative_folders_are_recorded_whole(folders, tmp_path, store, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(store, "base", [(1, "one")])
    assert record(store)["snapshots"]["1"]["ref"] == f"file://{folders['one']}"


def test_bf16_base_and_fp32_snapshot(tmp_path, store):
    narrow = {name: w.bfloat16() for name, w in model().items()}
    wide = {name: w.float() for name, w in narrow.items()}
    moved = {name: w + 1e-4 for name, w in wide.items()}
    given = [(1, save(tmp_path / "one", moved))]
    run(store, save(tmp_path / "narrow", narrow), given)
    for view in ("bf16", "master"):
        (row,) = rows(store, "update_support", Q, view)
        assert row["dtype"] == "fp32"
    # 1e-4 is above every fp32 ulp here and below nearly every half bf16 ulp: seen by one view, hardly by the other.
    assert rows(store, "update_support", Q)[0]["unchanged"] == 0.0
    assert rows(store, "update_support", Q, "bf16")[0]["unchanged"] > 0.5
    other = Store(f"file://{tmp_path}/other")
    run(other, save(tmp_path / "wide", wide), given)
    assert same(everything(store), everything(other))


@pytest.mark.parametrize("swap", [False, True])
def test_a_tied_head_may_be_on_one_side_only(swap, tmp_path, store):
    bare = save(tmp_path / "bare", model())
    full = save(tmp_path / "full", model(**{HEAD: model()[f"{EMBED}.weight"]}))
    base, snapshot = (full, bare) if swap else (bare, full)
    run(store, base, [(1, snapshot)])
    assert HEAD not in {row["matrix"] for row in rows(store, "update_support")}
    assert plan_import(store, base, [(1, snapshot)], CUTS, "x").notes == (f"{HEAD} is tied to {EMBED}: measured once",)


def test_an_untied_head_is_measured(tmp_path, store):
    head = {HEAD: torch.ones(10, N).double()}
    run(store, save(tmp_path / "a", model(**head), UNTIED), [(1, save(tmp_path / "b", model(**head), UNTIED))])
    (row,) = rows(store, "update_support", HEAD)
    assert (row["role"], row["scope"], row["unchanged"]) == ("head", "other", 1.0)


def test_what_is_on_one_side_only_is_noted_and_left_out(folders, tmp_path, store):
    less = save(tmp_path / "less", model(**{NORM: None, "model.extra": torch.ones(3)}))
    imported = plan_import(store, folders["base"], [(1, less), (2, folders["two"])], CUTS, "x")
    assert imported.notes[1:] == (f"only in base: {NORM}", "only in snapshot 1: model.extra")
    measure_import(imported, serial=True)
    assert [row["step"] for row in rows(store, "update_support", NORM)] == [2]
    assert [row["step"] for row in rows(store, "update_support", Q)] == [1, 2]
    assert record(store)["snapshots"]["1"]["absent"] == [NORM]


def test_vocabularies_of_different_length_are_compared_in_their_common_rows(tmp_path, store):
    longer = torch.cat([model()[f"{EMBED}.weight"], torch.ones(3, N).double()])
    base = save(tmp_path / "base", model())
    run(store, base, [(1, save(tmp_path / "one", drifted(1))), (2, save(tmp_path / "two", model(**{EMBED: longer})))])
    assert [(row["numel"], row["unchanged"]) for row in rows(store, "update_support", EMBED)] == [(10 * N, 1.0)] * 2
    other = Store(f"file://{tmp_path}/other")
    run(other, save(tmp_path / "long", model(**{EMBED: longer})), [(1, base)])
    assert [row["numel"] for row in rows(other, "update_support", EMBED)] == [10 * N]


def test_one_weight_under_two_steps(folders, store):
    run(store, folders["base"], [(1, folders["one"]), (2, folders["one"])])
    (row,) = (row for row in rows(store, "locking", Q) if row["side"] == "input")
    assert (row["step"], row["step_other"]) == (1, 2)
    first, second = (row | {"step": 0} for row in rows(store, "hill", Q) if row["k"] == 4)
    assert first == second


def test_roles_and_tables_are_chosen(folders, store):
    chosen = Measurement(k=(4,), tables=("update_support", "hill"))
    imported = plan_import(store, folders["base"], [(1, folders["one"])], chosen, "x", roles=["norm", "q"])
    measure_import(imported, serial=True)
    assert {row["matrix"] for row in rows(store, "update_support")} == {Q, NORM}
    assert store.list("lake") == ["hill", "timing", "update_support"]
    assert plan_import(store, folders["base"], [(1, folders["one"])], chosen, "x", roles=["q", "norm"]).fresh
    assert not plan_import(store, folders["base"], [(1, folders["one"])], chosen, "x").fresh


def test_non_finite_weights_are_named_and_the_others_measured(folders, tmp_path, store):
    broken = W0.clone()
    broken[0, :3] = float("nan")
    given = [(1, folders["one"]), (5, save(tmp_path / "broken", model(**{V: broken})))]
    problems = run(store, folders["base"], given)
    assert problems == [f"{V}: step 5: 3 non-finite weights"]
    first, second = rows(store, "spectral_drift", V)
    assert first["nss"] > 0 and (second["nss"], second["reason"]) == (None, "W_t has 3 non-finite weights")
    assert [row["reason"] for row in rows(store, "spectral_drift", Q)] == [None, None]
    again = plan_import(store, folders["base"], given, CUTS, "x")
    assert again.fresh
    assert measure_import(again, serial=True) == problems


def test_a_non_finite_base_is_named_and_the_others_measured(folders, tmp_path, store):
    broken = W0.clone()
    broken[0, 0] = float("inf")
    problems = run(store, save(tmp_path / "b", model(**{V: broken})), [(1, folders["one"])])
    assert problems == [f"{V}: base: 1 non-finite weights"]
    found = {row["matrix"]: row["nss"] is None for row in rows(store, "spectral_drift")}
    assert found == {Q: False, KEY: False, V: True, OUT: False}


def test_an_own_run_is_a_trajectory_whose_step_zero_is_the_base(tmp_path, store):
    trajectory = Trajectory(store, "tiny.opd", 0)
    for step in (0, 1, 2):
        trajectory.commit(step, drifted(step) if step else model(), None)
    found = list_checkpoints(f"{store.uri}/{trajectory.prefix}")
    assert found.base.endswith("step-00000000") and [step for step, _ in found.snapshots] == [1, 2]
    run(store, found.base, found.snapshots)
    other = Store(f"file://{tmp_path}/other")
    run(other, save(tmp_path / "base", model()), [(t, save(tmp_path / f"{t}", drifted(t))) for t in (1, 2)])
    assert same(everything(store), everything(other))


def test_a_prefix_on_s3_gives_the_rows_of_its_folders(folders, s3, store):
    for step, tensors in ((0, model()), (10, drifted(1)), (20, drifted(2))):
        s3.write(f"run/checkpoint-{step}/model.safetensors", serialise(tensors))
    s3.write("run/checkpoint-30/model.safetensors", b"half")
    found = list_checkpoints(f"{s3.uri}/run")
    assert len(found.notes) == 1 and found.notes[0].endswith("left out") and "snapshot 30" in found.notes[0]
    run(s3, found.base, found.snapshots)
    run(store, folders["base"], [(10, folders["one"]), (20, folders["two"])])
    assert same(everything(store), everything(s3))
    assert plan_import(s3, found.base, found.snapshots, CUTS, "x").fresh


def test_a_trajectory_needs_a_base_and_snapshots(folders, tmp_path):
    with pytest.raises(ValueError, match=r"holds no complete checkpoint of step 0; name .* --base$"):
        save(tmp_path / "run" / "step-5", drifted(1))
        list_checkpoints(f"{tmp_path}/run")
    given = list_checkpoints(f"{tmp_path}/run", folders["base"])
    assert (given.base, [step for step, _ in given.snapshots]) == (folders["base"], [5])
    save(tmp_path / "run" / "step-0", model())
    assert list_checkpoints(f"{tmp_path}/run", folders["base"]).notes == (
        f"step 0 under {tmp_path}/run is left out, since a base is given",
    )
    (tmp_path / "run" / "step-5" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"no complete checkpoint from step 1 up \(snapshot 5: .*\); let its training"):
        list_checkpoints(f"{tmp_path}/run")


def test_fused_weights_give_the_rows_of_split_ones(tmp_path, store):
    """q, k and v of two heads of eight, stored as one tensor, as Phi-3 does."""
    config = TIED | {"num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": N, "head_dim": 8}

    def split(seed):
        generator = torch.Generator().manual_seed(seed)
        draw = lambda rows: torch.randn(rows, N, generator=generator)
        return {name: draw(count) for name, count in ((Q, 16), (KEY, 8), (V, 8), (OUT, N))}

    def folder(name, parts, fused):
        parts = {f"{part}.weight": w for part, w in parts.items()}
        if fused:
            three = [parts.pop(f"{part}.weight") for part in (Q, KEY, V)]
            parts["model.layers.0.self_attn.qkv_proj.weight"] = torch.cat(three)
        return save(tmp_path / name, parts, config)

    other = Store(f"file://{tmp_path}/other")
    run(store, folder("a", split(1), False), [(1, folder("b", split(2), False))])
    run(other, folder("c", split(1), True), [(1, folder("d", split(2), True))])
    assert same(everything(store), everything(other))
    mixed = Store(f"file://{tmp_path}/mixed")
    run(mixed, f"{tmp_path}/a", [(1, f"{tmp_path}/d")])
    assert same(everything(store), everything(mixed))


@pytest.mark.parametrize("broken", [0, 3])
def test_large_embeddings_are_compared_in_blocks_of_rows(broken, tmp_path, store, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    before = torch.randn(1000, N, generator=generator)
    after = before.clone()
    after[::7] += 1.0
    after[-1, :broken] = torch.nan
    folders = [save(tmp_path / name, model(**{EMBED: w})) for name, w in (("a", before), ("b", after))]
    whole = run(store, folders[0], [(1, folders[1])])
    sizes, read = [], Store.read

    def spied(self, key, begin=None, end=None):
        data = read(self, key, begin, end)
        if key.endswith("model.safetensors"):
            sizes.append(len(data))
        return data

    monkeypatch.setattr(Store, "read", spied)
    monkeypatch.setattr(tasks, "BLOCK", 10_000)
    other = Store(f"file://{tmp_path}/other")
    assert run(other, folders[0], [(1, folders[1])]) == whole
    assert whole == ([f"{EMBED}: step 1: 3 non-finite weights"] if broken else [])
    assert same(everything(store), everything(other))
    assert max(sizes) <= max(10_000, 8 * M * N)
