"""Planted weights from real Hugging Face folders into tables and back, however and wherever the folders are stored."""

import math

import pytest
import torch

from pipelines import lake
from pipelines.runs import imports, worker
from pipelines.runs.given import under
from pipelines.runs.imports import measure_import, plan
from pipelines.store.objects import Store
from pipelines.store.tensors import serialise
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import TABLES, Measurement
from tests.pipelines.runs.conftest import (
    CUTS,
    EMBED,
    HEAD,
    KEY,
    NORM,
    OUT,
    RIGHT,
    SPECTRUM,
    TIED,
    UNTIED,
    W0,
    K,
    M,
    N,
    Q,
    U,
    V,
    drifted,
    everything,
    model,
    objects,
    orthonormal,
    record,
    rows,
    run,
    same,
    save,
    turned,
)

ANGLES = {1: 1e-6, 2: 1e-3, 3: 1.0, 4: 30.0, 5: 45.0}  # step: degrees


def flipped(count):
    """W0 with `count` weights changed, by so much that bf16 sees it."""
    w = W0.clone()
    w.view(-1)[:count] += 1.0
    return w


# Planted weights


def test_planted_rotations_are_recovered(tmp_path, store):
    base = save(tmp_path / "base", model())
    given = [(t, save(tmp_path / f"at {t}", model(**{Q: turned(angle)}))) for t, angle in ANGLES.items()]
    assert run(store, base, given) == []
    found = {(row["step"], row["side"]): row for row in rows(store, "rotation", Q)}
    assert len(found) == 2 * len(ANGLES)
    for step, angle in ANGLES.items():
        output, still = found[step, "output"], found[step, "input"]
        # The suite's own bound at this cut, 5e-11 degrees or better; what it reaches is 1e-13.
        assert abs(output["max_deg"] - angle) <= output["error_deg"] < 1e-9
        assert output["max_deg"] == pytest.approx(angle, rel=1e-9, abs=1e-12)
        assert output["rms_deg"] == pytest.approx(angle / math.sqrt(K), rel=1e-9, abs=1e-12)
        assert still["max_deg"] <= still["error_deg"]
        assert output["gap"] == pytest.approx(1 / (N - 1), rel=1e-12)


def test_planted_sparsity_is_exact(tmp_path, store):
    base = save(tmp_path / "base", model())
    run(store, base, [(count, save(tmp_path / f"{count}", model(**{KEY: flipped(count)}))) for count in (1, 7, 700)])
    for view in ("bf16", "master"):
        found = rows(store, "update_support", KEY, view)
        assert [(row["step"], row["numel"]) for row in found] == [(c, M * N) for c in (1, 7, 700)]
        assert [row["unchanged"] for row in found] == [(M * N - c) / (M * N) for c in (1, 7, 700)]
        assert {row["unchanged"] for row in rows(store, "update_support", Q, view)} == {1.0}


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_planted_rank_is_recovered(rank, tmp_path, store):
    update = 0.01 * orthonormal(M, rank, 5) @ orthonormal(N, rank, 6).T
    base = save(tmp_path / "base", model())
    run(store, base, [(1, save(tmp_path / "one", model(**{V: W0 + update})))])
    (row,), (norms,) = rows(store, "update_spectrum", V), rows(store, "update_norm", V)
    # W0 + update is rounded at 2^-52 of weights 100 times the update's: 1e-13 of each singular value.
    for column in (row["effective_rank"], row["effective_rank_energy"], norms["stable_rank"]):
        assert column == pytest.approx(rank, rel=1e-9)
    assert norms["frobenius"] == pytest.approx(0.01 * math.sqrt(rank), rel=1e-9)
    assert norms["spectral_norm"] == pytest.approx(0.01, rel=1e-9)


def test_planted_shift_of_the_spectrum_is_recovered(tmp_path, store):
    shift = torch.linspace(0.01, 0.02, N, dtype=torch.float64).flip(0)  # keeps the order
    base = save(tmp_path / "base", model())
    run(store, base, [(1, save(tmp_path / "one", model(**{OUT: (U * (SPECTRUM + shift)) @ RIGHT.T})))])
    (row,) = rows(store, "spectral_drift", OUT)
    nss = float(shift.norm() / SPECTRUM.norm())
    assert row["nss"] == pytest.approx(nss, rel=1e-12)
    assert row["mirsky"] == pytest.approx(nss, rel=1e-12)
    for turn in rows(store, "rotation", OUT):
        assert turn["max_deg"] <= turn["error_deg"]


def test_rows_say_whose_they_are(folders, store):
    imported = plan(store, folders["base"], [(2, folders["two"]), (1, folders["one"])], CUTS, "x")
    assert (imported.recipe, imported.steps, imported.fresh) == ("external.x", (1, 2), False)
    assert len(imported.work) == 6
    assert objects(store) == {}
    seen = []
    assert measure_import(imported, serial=True, progress=lambda done, of: seen.append((done, of))) == []
    costs = [task.cost for task in imported.work]
    assert seen == [(sum(costs[: i + 1]), sum(costs)) for i in range(6)]
    support = lake.scan("update_support", store.uri).collect()
    assert set(support["matrix"]) == {Q, KEY, V, OUT, EMBED, NORM}
    assert set(support["step"]) == {1, 2}
    assert support.select("study", "recipe", "seed").unique().row(0) == ("external", "external.x", 0)
    for column in ("objective", "optimizer", "learning_rate", "weight_decay", "run_steps"):
        assert support[column].null_count() == len(support)
    timing = lake.written(store, "timing", recipe="external.x", seed=0)
    assert timing is not None and timing["phase"].to_list() == ["measure"]
    found = record(store)
    assert found["base"]["ref"] == f"file://{folders['base']}"
    assert [found["snapshots"][step]["ref"] for step in ("1", "2")] == [
        f"file://{folders[which]}" for which in ("one", "two")
    ]
    assert found["tables"].keys() == set(TABLES)
    made = found["tables"]["hill"]
    assert made["settings"] == {"k": [4], "hill_k": [4]}
    assert (made["engine"], made["roles"], made["problems"]) == (imports.VERSION, None, [])
    assert made["steps"] == {step: found["snapshots"][step]["stamp"] for step in ("1", "2")}
    assert "commit" in found["provenance"]


# Folders


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
    assert plan(memory, folders["base"], [(1, folders["one"])], CUTS, "x").fresh


def test_ray_gives_the_same_rows(folders, tmp_path, store, workers):
    serial = Store(f"file://{tmp_path}/serial")
    given = [(1, folders["one"]), (2, folders["two"])]
    run(serial, folders["base"], given)
    assert measure_import(plan(store, folders["base"], given, CUTS, "x")) == []
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
    assert plan(store, base, [(1, snapshot)], CUTS, "x").notes == (f"{HEAD} is tied to {EMBED}: measured once",)


def test_an_untied_head_is_measured(tmp_path, store):
    head = {HEAD: torch.ones(10, N).double()}
    run(store, save(tmp_path / "a", model(**head), UNTIED), [(1, save(tmp_path / "b", model(**head), UNTIED))])
    (row,) = rows(store, "update_support", HEAD)
    assert (row["role"], row["scope"], row["unchanged"]) == ("head", "other", 1.0)


def test_what_is_on_one_side_only_is_noted_and_left_out(folders, tmp_path, store):
    less = save(tmp_path / "less", model(**{NORM: None, "model.extra": torch.ones(3)}))
    imported = plan(store, folders["base"], [(1, less), (2, folders["two"])], CUTS, "x")
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
    imported = plan(store, folders["base"], [(1, folders["one"])], chosen, "x", roles=["norm", "q"])
    measure_import(imported, serial=True)
    assert {row["matrix"] for row in rows(store, "update_support")} == {Q, NORM}
    assert store.list("lake") == ["hill", "timing", "update_support"]
    assert plan(store, folders["base"], [(1, folders["one"])], chosen, "x", roles=["q", "norm"]).fresh
    assert not plan(store, folders["base"], [(1, folders["one"])], chosen, "x").fresh


def test_non_finite_weights_are_named_and_the_others_measured(folders, tmp_path, store):
    broken = W0.clone()
    broken[0, :3] = float("nan")
    given = [(1, folders["one"]), (5, save(tmp_path / "broken", model(**{V: broken})))]
    problems = run(store, folders["base"], given)
    assert problems == [f"{V}: step 5: 3 non-finite weights"]
    first, second = rows(store, "spectral_drift", V)
    assert first["nss"] > 0 and (second["nss"], second["reason"]) == (None, "W_t has 3 non-finite weights")
    assert [row["reason"] for row in rows(store, "spectral_drift", Q)] == [None, None]
    again = plan(store, folders["base"], given, CUTS, "x")
    assert again.fresh
    assert measure_import(again, serial=True) == problems


def test_a_non_finite_base_is_named_and_the_others_measured(folders, tmp_path, store):
    broken = W0.clone()
    broken[0, 0] = float("inf")
    problems = run(store, save(tmp_path / "b", model(**{V: broken})), [(1, folders["one"])])
    assert problems == [f"{V}: base: 1 non-finite weights"]
    found = {row["matrix"]: row["nss"] is None for row in rows(store, "spectral_drift")}
    assert found == {Q: False, KEY: False, V: True, OUT: False}


# Where checkpoints lie


def test_an_own_run_is_a_trajectory_whose_step_zero_is_the_base(tmp_path, store):
    trajectory = Trajectory(store, "tiny.opd", 0)
    for step in (0, 1, 2):
        trajectory.commit(step, drifted(step) if step else model(), None)
    found = under(f"{store.uri}/{trajectory.prefix}")
    assert found.base.endswith("step-00000000") and [step for step, _ in found.snapshots] == [1, 2]
    run(store, found.base, found.snapshots)
    other = Store(f"file://{tmp_path}/other")
    run(other, save(tmp_path / "base", model()), [(t, save(tmp_path / f"{t}", drifted(t))) for t in (1, 2)])
    assert same(everything(store), everything(other))


def test_a_prefix_on_s3_gives_the_rows_of_its_folders(folders, s3, store):
    for step, tensors in ((0, model()), (10, drifted(1)), (20, drifted(2))):
        s3.write(f"run/checkpoint-{step}/model.safetensors", serialise(tensors))
    s3.write("run/checkpoint-30/model.safetensors", b"half")
    found = under(f"{s3.uri}/run")
    assert len(found.notes) == 1 and found.notes[0].endswith("left out") and "snapshot 30" in found.notes[0]
    run(s3, found.base, found.snapshots)
    run(store, folders["base"], [(10, folders["one"]), (20, folders["two"])])
    assert same(everything(store), everything(s3))
    assert plan(s3, found.base, found.snapshots, CUTS, "x").fresh


def test_a_trajectory_needs_a_base_and_snapshots(folders, tmp_path):
    with pytest.raises(ValueError, match=r"holds no complete checkpoint of step 0; name .* --base$"):
        save(tmp_path / "run" / "step-5", drifted(1))
        under(f"{tmp_path}/run")
    given = under(f"{tmp_path}/run", folders["base"])
    assert (given.base, [step for step, _ in given.snapshots]) == (folders["base"], [5])
    save(tmp_path / "run" / "step-0", model())
    assert under(f"{tmp_path}/run", folders["base"]).notes == (
        f"step 0 under {tmp_path}/run is left out, since a base is given",
    )
    (tmp_path / "run" / "step-5" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"no complete checkpoint from step 1 up \(snapshot 5: .*\); let its training"):
        under(f"{tmp_path}/run")


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
    monkeypatch.setattr(worker, "BLOCK", 10_000)
    other = Store(f"file://{tmp_path}/other")
    assert run(other, folders[0], [(1, folders[1])]) == whole
    assert whole == ([f"{EMBED}: step 1: 3 non-finite weights"] if broken else [])
    assert same(everything(store), everything(other))
    assert max(sizes) <= max(10_000, 8 * M * N)
