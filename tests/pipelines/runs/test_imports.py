"""Planted weights through real Hugging Face folders, plan, tables and back; what is refused; and merging."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipelines import lake
from pipelines.runs import imports
from pipelines.runs.imports import TABLES, measure_import, plan
from pipelines.store.objects import Store
from pipelines.studies.study import Measurement

CUTS = Measurement(k=(4,), hill_k=(4,))
M, N, K = 48, 32, 4  # out, in, the cut
ANGLES = {1: 1e-6, 2: 1e-3, 3: 1.0, 4: 30.0, 5: 45.0}  # step: degrees
Q, KEY, V, OUT = (f"model.layers.0.self_attn.{part}_proj" for part in "qkvo")
EMBED, NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}


def orthonormal(n, k, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64)).Q


U, RIGHT = orthonormal(M, N, 1), orthonormal(N, N, 2)
SPECTRUM = torch.linspace(2.0, 1.0, N, dtype=torch.float64)
W0 = (U * SPECTRUM) @ RIGHT.T


def turned(degrees):
    """The K-th left singular vector turned towards the next one."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    u = U.clone()
    u[:, K - 1], u[:, K] = c * U[:, K - 1] + s * U[:, K], c * U[:, K] - s * U[:, K - 1]
    return (u * SPECTRUM) @ RIGHT.T


def flipped(count):
    """W0 with `count` weights changed, by so much that bf16 sees it."""
    w = W0.clone()
    w.view(-1)[:count] += 1.0
    return w


def model(**changes):
    """Four projections, an embedding and a norm in fp64; changes by name without .weight."""
    generator = torch.Generator().manual_seed(3)
    tensors = {part: W0 for part in (Q, KEY, V, OUT)}
    tensors |= {EMBED: torch.randn(10, N, generator=generator).double(), NORM: torch.ones(N).double()}
    return {f"{name}.weight": w.clone() for name, w in (tensors | changes).items() if w is not None}


def drifted(step):
    generator = torch.Generator().manual_seed(step)
    return model(**{part: W0 + 0.01 * torch.randn(M, N, generator=generator).double() for part in (Q, KEY, V, OUT)})


def save(folder, tensors, config=TIED, shards=1, vocabulary=None):
    """A Hugging Face folder; returns its path."""
    folder.mkdir(parents=True)
    names = sorted(tensors)
    files = ["model.safetensors"] if shards == 1 else [f"model-{i}-of-{shards}.safetensors" for i in range(shards)]
    where = {name: files[i % shards] for i, name in enumerate(names)}
    for file in files:
        save_file({name: tensors[name] for name in names if where[name] == file}, folder / file)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if vocabulary is not None:
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return str(folder)


@pytest.fixture
def folders(tmp_path):
    """A base and snapshots 1 and 2, whose folder names are base, one and two."""
    return {
        "base": save(tmp_path / "base", model()),
        "one": save(tmp_path / "one", drifted(1)),
        "two": save(tmp_path / "two", drifted(2)),
    }


def run(store, base, snapshots, measurement=CUTS, name="x"):
    """plan, then measure; returns the problems."""
    return measure_import(plan(store, base, snapshots, measurement, name), serial=True)


def rows(store, table, matrix=None, view="master", recipe="external.x"):
    frame = lake.scan(table, store.uri).filter(recipe=recipe, view=view)
    return (frame if matrix is None else frame.filter(matrix=matrix)).sort("step").collect().to_dicts()


def everything(store):
    """The rows of all measured tables."""
    return {table: lake.written(store, table, recipe="external.x", seed=0) for table in TABLES}


def same(one, other):
    return all(one[table].equals(other[table]) for table in TABLES)


def record(store, recipe="external.x"):
    return json.loads(store.read(f"runs/{recipe}/seed-0/import.json"))


def objects(store):
    root = Path(store.path(""))
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def refused(store, base, snapshots, *parts, measurement=CUTS, name="x"):
    """plan refuses in one line that holds all `parts`, and the store is as it was."""
    before = objects(store)
    with pytest.raises(ValueError) as caught:
        plan(store, base, snapshots, measurement, name)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert objects(store) == before


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
    (row,) = rows(store, "update_spectrum", V)
    # W0 + update is rounded at 2^-52 of weights 100 times the update's: 1e-13 of each singular value.
    for column in ("stable_rank", "effective_rank", "effective_rank_energy"):
        assert row[column] == pytest.approx(rank, rel=1e-9)
    assert row["frobenius"] == pytest.approx(0.01 * math.sqrt(rank), rel=1e-9)
    assert row["spectral_norm"] == pytest.approx(0.01, rel=1e-9)


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
    assert seen == [(i, 6) for i in range(1, 7)]
    support = lake.scan("update_support", store.uri).collect()
    assert set(support["matrix"]) == {Q, KEY, V, OUT, EMBED, NORM}
    assert set(support["step"]) == {1, 2}
    assert support.select("study", "recipe", "seed").unique().row(0) == ("external", "external.x", 0)
    for column in ("objective", "optimizer", "learning_rate", "weight_decay", "run_steps"):
        assert support[column].null_count() == len(support)
    assert {row["phase"] for row in lake.written(store, "timing", recipe="external.x", seed=0).to_dicts()} == {
        "measure"
    }
    found = record(store)
    assert found["base"]["ref"] == folders["base"]
    assert [found["snapshots"][step]["ref"] for step in ("1", "2")] == [folders["one"], folders["two"]]
    assert found["settings"] == {"k": [4], "hill_k": [4]}
    assert (found["complete"], found["engine"], found["problems"]) == (True, imports.VERSION, [])
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
    assert record(store)["snapshots"]["1"]["ref"] == folders["one"]


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


def test_architectures_that_tie_by_default_leave_the_key_out(tmp_path, store):
    full = save(tmp_path / "full", model(**{HEAD: torch.ones(10, N)}))
    plan(store, save(tmp_path / "bare", model(), config={}), [(1, full)], CUTS, "x")


def test_an_untied_head_is_measured(tmp_path, store):
    head = {HEAD: torch.ones(10, N).double()}
    run(store, save(tmp_path / "a", model(**head), UNTIED), [(1, save(tmp_path / "b", model(**head), UNTIED))])
    (row,) = rows(store, "update_support", HEAD)
    assert (row["role"], row["scope"], row["unchanged"]) == ("head", "other", 1.0)


@pytest.mark.parametrize("config", [UNTIED, None])
def test_an_absent_head_that_is_not_tied_is_refused(config, folders, tmp_path, store):
    full = save(tmp_path / "full", model(**{HEAD: torch.ones(10, N)}))
    bare = save(tmp_path / "bare", model(), config)
    refused(store, full, [(1, bare)], "snapshot 1", bare, "lacks tensor lm_head.weight", "one architecture")


def test_non_finite_weights_are_named_and_the_others_measured(folders, tmp_path, store):
    broken = W0.clone()
    broken[0, :3] = float("nan")
    given = [(1, folders["one"]), (5, save(tmp_path / "broken", model(**{V: broken})))]
    problems = run(store, folders["base"], given)
    assert problems == [f"{V}.weight: step 5: 3 non-finite weights"]
    assert [row["step"] for row in rows(store, "spectral_drift", V)] == [1]
    assert [row["step"] for row in rows(store, "spectral_drift", Q)] == [1, 5]
    again = plan(store, folders["base"], given, CUTS, "x")
    assert again.fresh
    assert measure_import(again, serial=True) == problems


def test_a_non_finite_base_is_named_and_the_others_measured(folders, tmp_path, store):
    broken = W0.clone()
    broken[0, 0] = float("inf")
    problems = run(store, save(tmp_path / "b", model(**{V: broken})), [(1, folders["one"])])
    assert problems == [f"{V}.weight: base: 1 non-finite weights"]
    assert {row["matrix"] for row in rows(store, "spectral_drift")} == {Q, KEY, OUT}


# What is refused


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "..\n", "\u00e9", "a" * 101])
def test_names_are_plain(name, folders, store):
    refused(store, folders["base"], [(1, folders["one"])], repr(name), "a-z, 0-9", name=name)


@pytest.mark.parametrize("step", [0, -1, 1.5, True, "3", 2**63])
def test_steps_are_positive_integers(step, folders, store):
    refused(store, folders["base"], [(step, folders["one"])], f"step {step!r}", "whole number from 1")


def test_a_step_is_given_once(folders, store):
    given = [(7, folders["one"]), (7, folders["two"])]
    refused(store, folders["base"], given, "step 7 is given 2 times", "one folder")


def test_snapshots_are_needed(folders, store):
    refused(store, folders["base"], [], "no snapshots", "--snapshot STEP=FOLDER")


def test_cuts_are_checked(folders, store):
    wrong = Measurement(k=(0,))
    refused(store, folders["base"], [(1, folders["one"])], "k=(0,)", "from 1 up", measurement=wrong)


def test_absent_folders(folders, tmp_path, store):
    one, gone = folders["one"], f"{tmp_path}/gone"
    refused(store, gone, [(1, one)], f"base: folder {gone} does not exist", "name a local Hugging Face folder")
    refused(store, folders["base"], [(3, gone)], f"snapshot 3: folder {gone} does not exist", "hub names")
    file = f"{one}/model.safetensors"
    refused(store, file, [(1, one)], f"base: folder {file} is a file", "name a local Hugging Face folder")
    refused(store, "s3://b/m", [(1, one)], "base: s3://b/m is not a local folder", "copy it here")


@pytest.mark.parametrize(
    ("file", "what", "remedy"),
    [
        (None, "no other weights", "name a folder with model.safetensors"),
        ("pytorch_model.bin", "pickled", "convert them with save_pretrained"),
        ("pytorch_model-00001-of-00002.bin", "pickled", "convert them with save_pretrained"),
        ("adapter_model.safetensors", "an adapter", "merge it into its base"),
    ],
)
def test_folders_without_safetensors(file, what, remedy, folders, tmp_path, store):
    (tmp_path / "bad").mkdir()
    if file:
        (tmp_path / "bad" / file).write_bytes(b"x")
    refused(store, folders["base"], [(1, f"{tmp_path}/bad")], "snapshot 1", f"{tmp_path}/bad holds no", what, remedy)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_files(keep, folders, store):
    file = Path(folders["one"], "model.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    refused(store, folders["base"], [(1, folders["one"])], "snapshot 1", str(file), "copy or convert")


def test_foreign_files(folders, store):
    file = Path(folders["base"], "model.safetensors")
    file.write_bytes(b"PK\x03\x04" * 100)
    refused(
        store, folders["base"], [(1, folders["one"])], "base", str(file), "not a safetensors file", "copy or convert"
    )


def test_missing_shards(folders, tmp_path, store):
    sharded = save(tmp_path / "sharded", drifted(1), shards=2)
    Path(sharded, "model-1-of-2.safetensors").unlink()
    parts = ("snapshot 1", f"{sharded}/model.safetensors.index.json", "'model-1-of-2.safetensors'", "copy it there")
    refused(store, folders["base"], [(1, sharded)], *parts)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}'])
def test_broken_indices(text, folders, tmp_path, store):
    sharded = save(tmp_path / "sharded", drifted(1), shards=2)
    Path(sharded, "model.safetensors.index.json").write_text(text)
    refused(store, folders["base"], [(1, sharded)], f"{sharded}/model.safetensors.index.json", "copy it again")


@pytest.mark.parametrize("shard", ["../base/model.safetensors", "/etc/hostname", 3])
def test_an_index_stays_in_its_folder(shard, folders, tmp_path, store):
    sharded = save(tmp_path / "sharded", drifted(1), shards=2)
    Path(sharded, "model.safetensors.index.json").write_text(json.dumps({"weight_map": {f"{Q}.weight": shard}}))
    refused(store, folders["base"], [(1, sharded)], repr(shard), "not in the folder")


def test_other_shapes(folders, tmp_path, store):
    turned = save(tmp_path / "turned", model(**{Q: W0.T.contiguous()}))
    parts = (f"tensor {Q}.weight", "(32, 48)", "(48, 32)", "snapshot 9", turned, folders["base"], "trained from")
    refused(store, folders["base"], [(1, folders["one"]), (9, turned)], *parts)


def test_other_names(folders, tmp_path, store):
    less = save(tmp_path / "less", model(**{NORM: None}))
    parts = (f"lacks tensor {NORM}.weight", "one architecture")
    refused(store, folders["base"], [(1, less)], f"snapshot 1 ({less}) ", *parts)
    refused(store, less, [(1, folders["one"])], f"base ({less}) ", *parts)


@pytest.mark.parametrize("form", [dict, list])
def test_other_tokenizers(form, folders, tmp_path, store):
    def shape(tokens):
        return {t: i for i, t in enumerate(tokens)} if form is dict else [[t, -1.0] for t in tokens]

    base = save(tmp_path / "b", model(), vocabulary=shape("abcd"))
    alike = save(tmp_path / "a", model(), vocabulary=shape("abcd"))
    swapped = save(tmp_path / "s", model(), vocabulary=shape("acbd"))
    longer = save(tmp_path / "l", model(), vocabulary=shape("abcde"))
    assert plan(store, base, [(1, alike), (2, folders["one"])], CUTS, "x").steps == (1, 2)
    parts = ("token 'c' has id 2", "and id 1", base, swapped, "snapshot 2", "trained from")
    refused(store, base, [(1, alike), (2, swapped)], *parts)
    refused(store, base, [(2, longer)], "token 'e' has no id", "and id 4", longer)


def test_a_broken_tokenizer(folders, tmp_path, store):
    base = save(tmp_path / "b", model(), vocabulary={"a": 0})
    Path(folders["one"], "tokenizer.json").write_text('{"model": {}}')
    refused(store, base, [(1, folders["one"])], f"{folders['one']}/tokenizer.json", "remove it")


def test_quantized_weights(tmp_path, store):
    eight = {name: w.to(torch.float8_e4m3fn) if "proj" in name else w for name, w in model().items()}
    base = save(tmp_path / "base", eight)
    refused(store, base, [(1, base)], f"{KEY}.weight", base, "quantized", "save the model in bf16")


def test_folders_without_weights(folders, tmp_path, store):
    none = save(tmp_path / "none", {"position_ids": torch.arange(3)})
    refused(store, none, [(1, folders["one"])], none, "no bf16, fp16, fp32 or fp64 tensor", "save the model whole")
    empty = save(tmp_path / "empty", model(**{Q: torch.zeros(0, 3)}))
    refused(store, empty, [(1, folders["one"])], f"tensor {Q}.weight", "(0, 3)", "save the model whole")


def test_a_store_that_cannot_be_written(folders, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=rf"^store file://{tmp_path}/file/store cannot be written .*; set OPD_STORE"):
        plan(Store(f"file://{tmp_path}/file/store"), folders["base"], [(1, folders["one"])], CUTS, "x")


# Merging


def test_the_default_name_follows_the_base(folders, store):
    imported = plan(store, folders["base"], [(1, folders["one"])], CUTS)
    assert imported.recipe == f"external.{imported.record['base']['digest'][:12]}"
    assert plan(store, folders["base"], [(2, folders["two"])], CUTS).recipe == imported.recipe
    assert plan(store, folders["one"], [(2, folders["two"])], CUTS).recipe != imported.recipe


def test_a_second_call_adds_its_snapshots(folders, tmp_path, store):
    at_once = Store(f"file://{tmp_path}/at-once")
    run(at_once, folders["base"], [(1, folders["one"]), (2, folders["two"])])
    run(store, folders["base"], [(2, folders["two"])])
    run(store, folders["base"], [(1, folders["one"])])
    assert {(row["step"], row["step_other"]) for row in rows(store, "locking")} == {(1, 2)}
    assert same(everything(store), everything(at_once))
    assert record(store)["snapshots"] == record(at_once)["snapshots"]


def test_the_same_again_measures_nothing(folders, tmp_path, store, monkeypatch):
    run(store, folders["base"], [(1, folders["one"]), (2, folders["two"])])
    before = objects(store)
    monkeypatch.setattr(imports, "measure", None)
    moved = shutil.copytree(folders["two"], tmp_path / "moved")
    shutil.rmtree(folders["one"])
    again = plan(store, folders["base"], [(2, str(moved))], CUTS, "x")
    assert (again.fresh, again.steps, again.work) == (True, (1, 2), [])
    assert measure_import(again, serial=True) == []
    assert objects(store) == before


def test_other_settings_or_engine_measure_everything_again(folders, store, monkeypatch):
    run(store, folders["base"], [(1, folders["one"]), (2, folders["two"])])
    run(store, folders["base"], [(1, folders["one"])], Measurement(k=(2, 8), hill_k=(4,)))
    assert {(row["step"], row["k"]) for row in rows(store, "rotation", Q)} == {(t, k) for t in (1, 2) for k in (2, 8)}
    monkeypatch.setattr(imports, "VERSION", imports.VERSION + 1)
    assert not plan(store, folders["base"], [(1, folders["one"])], Measurement(k=(2, 8), hill_k=(4,)), "x").fresh


def test_absent_tables_are_measured_again(folders, store):
    run(store, folders["base"], [(1, folders["one"])])
    store.remove("lake/hill")
    run(store, folders["base"], [(1, folders["one"])])
    assert rows(store, "hill")


def test_another_base_needs_another_name(folders, tmp_path, store):
    run(store, folders["base"], [(1, folders["one"])])
    other = save(tmp_path / "other", model(**{Q: turned(1.0)}))
    refused(store, other, [(2, folders["two"])], "external.x", folders["base"], other, "another --name")
    run(store, other, [(2, folders["two"])], name="y")
    assert [row["step"] for row in rows(store, "spectral_drift", Q)] == [1]
    assert [row["step"] for row in rows(store, "spectral_drift", Q, recipe="external.y")] == [2]


def test_a_step_keeps_its_contents(folders, store):
    run(store, folders["base"], [(1, folders["one"])])
    parts = ("other weights at step 1", folders["one"], folders["two"], "another --name")
    refused(store, folders["base"], [(1, folders["two"])], *parts)


def test_recorded_snapshots_must_still_be_there(folders, tmp_path, store):
    run(store, folders["base"], [(1, folders["one"])])
    moved = shutil.move(folders["one"], tmp_path / "moved")
    parts = (f"recorded snapshot 1 is gone from {folders['one']}", "--snapshot 1=FOLDER", "another --name")
    refused(store, folders["base"], [(2, folders["two"])], *parts)
    assert run(store, folders["base"], [(1, str(moved)), (2, folders["two"])]) == []
    assert record(store)["snapshots"]["1"]["ref"] == str(moved)


def test_recorded_snapshots_must_be_what_they_were(folders, tmp_path, store):
    run(store, folders["base"], [(1, folders["one"])])
    shutil.rmtree(folders["one"])
    save(Path(folders["one"]), drifted(3))
    parts = (f"recorded snapshot 1 ({folders['one']}) has changed", "--snapshot 1=FOLDER", "another --name")
    refused(store, folders["base"], [(2, folders["two"])], *parts)


def test_a_record_of_another_layout(folders, store):
    run(store, folders["base"], [(1, folders["one"])])
    store.write("runs/external.x/seed-0/import.json", json.dumps(record(store) | {"layout": 99}).encode())
    refused(store, folders["base"], [(1, folders["one"])], "layout 99", "another --name")


class Stopping:
    """The lake, interrupted at the table hill."""

    def write(self, store: Store, table: str, found: list, **partition: str | int) -> str:
        if table == "hill":
            raise KeyboardInterrupt
        return lake.write(store, table, found, **partition)


def test_stopped_between_two_tables_it_vouches_for_nothing(folders, store, monkeypatch):
    run(store, folders["base"], [(1, folders["one"])])

    with monkeypatch.context() as patch:
        patch.setattr(imports, "lake", Stopping())
        with pytest.raises(KeyboardInterrupt):
            run(store, folders["base"], [(2, folders["two"])])
    again = plan(store, folders["base"], [(1, folders["one"])], CUTS, "x")
    assert (again.fresh, again.steps) == (False, (1, 2))
    measure_import(again, serial=True)
    assert plan(store, folders["base"], [(1, folders["one"])], CUTS, "x").fresh
    assert {row["step"] for row in rows(store, "hill")} == {1, 2}
