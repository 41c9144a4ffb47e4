"""Every kind of REF opens to the same tensors from headers alone; series of steps; and what is refused."""

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as packed

from pipelines.store import checkpoints
from pipelines.store.checkpoints import Incomplete, open_checkpoint
from pipelines.store.objects import Store
from pipelines.store.series import open_trajectory
from pipelines.store.tensors import serialise
from pipelines.store.trajectory import Trajectory
from tests.pipelines.store.conftest import draw, llama, save

Q = "model.layers.0.self_attn.q_proj.weight"
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def same(checkpoint, tensors):
    found = {name: ref.read() for name, ref in checkpoint.tensors.items()}
    return found.keys() == tensors.keys() and all(torch.equal(found[name], w) for name, w in tensors.items())


def refused(ref, *parts, kind=ValueError, who="base"):
    """Opening fails in one line that begins with who and holds all `parts`."""
    with pytest.raises(ValueError) as caught:
        open_checkpoint(who, str(ref))
    message = str(caught.value)
    assert message.startswith(f"{who}: ") and "\n" not in message
    for part in parts:
        assert part in message
    assert type(caught.value) is kind


# Kinds of REF


def test_a_folder_opens_on_every_store(any_store):
    uri = save(any_store, "a model", llama(), {"model_type": "llama"}, 3, {"a": 0})
    found = open_checkpoint("base", uri)
    assert (found.who, found.ref, found.config) == ("base", uri, {"model_type": "llama"})
    assert found.vocabulary == {"a": 0}
    assert same(found, llama())
    assert open_checkpoint("base", f"{uri}/") == found


def test_a_local_folder_opens_by_its_path(files, tmp_path, monkeypatch):
    uri = save(files, "org/name", llama())
    monkeypatch.chdir(tmp_path)
    for ref in (tmp_path / "org" / "name", "org/name", "./org/name/", uri):
        found = open_checkpoint("base", str(ref))
        assert found.ref.removesuffix("/") == uri and same(found, llama())
    assert str(found) == f"base ({tmp_path}/org/name)"
    assert (found.config, found.vocabulary) == (None, None)


def test_a_single_file_opens(near):
    near.write("exports/one.safetensors", serialise(llama()))
    near.write("exports/two.safetensors", serialise(llama(1)))
    near.write("exports/config.json", b'{"hidden_size": 4}')
    found = open_checkpoint("base", f"{near.uri}/exports/one.safetensors")
    assert found.ref == f"{near.uri}/exports/one.safetensors"
    assert found.config == {"hidden_size": 4}
    assert same(found, llama())
    refused(f"{near.uri}/exports/none.safetensors", "none.safetensors does not exist", "name a")


def test_a_local_file_opens_by_its_path(files, tmp_path, monkeypatch):
    files.write("one.safetensors", serialise(llama()))
    monkeypatch.chdir(tmp_path)
    assert same(open_checkpoint("base", "one.safetensors"), llama())


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache with org/name, as `hf download` leaves it: files are links to blobs."""
    cache = tmp_path / "cache"
    repo = cache / "models--org--name"
    shutil.move(save(Store(f"file://{tmp_path}"), "given", llama(), {}).removeprefix("file://"), repo / "blobs")
    folder = repo / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    for blob in (repo / "blobs").iterdir():
        blob.rename(blob.with_name(f"sha-of-{blob.stem}"))
        (folder / blob.name).symlink_to(Path("../../blobs") / f"sha-of-{blob.stem}")
    for revision in ("main", "v1.0", "refs/pr/7"):
        (repo / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (repo / "refs" / revision).write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    return cache


@pytest.mark.parametrize(
    "ref", ["org/name", "org/name@main", "org/name@v1.0", "org/name@refs/pr/7", f"org/name@{COMMIT}"]
)
def test_a_hub_name_opens_from_the_cache(ref, hub):
    found = open_checkpoint("base", ref)
    assert found.ref == f"file://{hub}/models--org--name/snapshots/{COMMIT}"
    assert found.config == {} and same(found, llama())


def test_a_local_folder_wins_over_a_hub_name(hub, files):
    uri = save(files, "org/name", llama(1))
    assert open_checkpoint("base", "org/name").ref == uri


def test_the_hub_cache_is_found_as_the_hub_client_finds_it(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", "")
    for name, value, place in (
        ("HF_HOME", f"{tmp_path}/hf", f"{tmp_path}/hf/hub"),
        ("HF_HOME", "", f"{tmp_path}/home/.cache/huggingface/hub"),
        ("XDG_CACHE_HOME", f"{tmp_path}/xdg", f"{tmp_path}/xdg/huggingface/hub"),
    ):
        monkeypatch.setenv(name, value)
        refused("org/name", f"org/name is neither a folder here nor in the hub cache {place}; ")
        shutil.copytree(hub, place, symlinks=True)
        assert same(open_checkpoint("base", "org/name"), llama())


def test_hub_names_that_are_not_cached(hub):
    refused("org/none", f"org/none is neither a folder here nor in the hub cache {hub}", "`hf download org/none`")
    refused("org/name@v2", "org/name@v2 is neither", "`hf download org/name --revision v2`")
    shutil.rmtree(hub / "models--org--name" / "snapshots")
    refused("org/name", "`hf download org/name`")


@pytest.mark.parametrize(
    "ref", ["", "none", "./org/name", "../org/name", "a/b/c", "org/name@../../x", "org/x.safetensors"]
)
def test_what_leads_nowhere(ref, hub):
    refused(ref, f"{ref or repr('')} does not exist; name a Hugging Face folder")


def test_own_snapshots(near):
    run = Trajectory(near, "tiny.opd", 3)
    run.register({"identity": {}, "fingerprint": "x", "inputs": {}, "model": {"hidden_size": 4}})
    run.commit(20, llama(), None)
    found = open_checkpoint("base", f"{near.uri}/runs/tiny.opd/seed-3/step-00000020")
    assert found.config == {"hidden_size": 4} and found.vocabulary is None
    assert found.tensors.keys() == run.refs(20).keys() and same(found, llama())


def test_own_snapshots_that_are_not_whole(memory):
    run = Trajectory(memory, "tiny.opd", 3)
    run.commit(20, llama(), None)
    folder = "runs/tiny.opd/seed-3/step-00000020"
    ref, manifest = f"{memory.uri}/{folder}", json.loads(memory.read(f"{folder}/manifest.json"))
    assert open_checkpoint("base", ref).config is None
    memory.write(f"{folder}/master.safetensors", serialise(llama(rows=11)))
    refused(ref, "master.safetensors", "differs from its manifest", "copy it again", kind=Incomplete)
    memory.remove(f"{folder}/master.safetensors")
    refused(ref, "lacks master.safetensors", kind=Incomplete)
    memory.write(f"{folder}/manifest.json", json.dumps(manifest | {"layout": 99}).encode())
    refused(ref, f"{ref}/manifest.json has layout 99; this version reads layout 1")
    memory.write(f"{folder}/manifest.json", b'{"layout": 1, "files": 3}')
    refused(ref, "lists no files and sizes")
    memory.write(f"{folder}/master.safetensors", serialise(llama()))
    memory.remove(f"{folder}/manifest.json")
    refused(ref, "not committed", kind=Incomplete)


# Headers alone


def test_opening_reads_headers_and_json_only(memory, asked):
    ref = save(memory, "m", llama(), {}, 2, {"a": 0})
    found = open_checkpoint("base", ref)
    whole = {key.rpartition("/")[2] for key, begin, _ in asked if begin is None}
    assert whole == {"model.safetensors.index.json", "config.json"}
    for key, begin, end in asked:
        assert begin is None or all(end <= ref.begin for ref in found.tensors.values() if ref.key == key)
    asked.clear()
    assert found.vocabulary == found.vocabulary == {"a": 0}
    assert len(asked) == 1


def test_an_index_picks_its_tensors(memory):
    save(memory, "m", llama(), shards=2)
    file = "m/model-0-of-2.safetensors"
    memory.write(file, serialise({**llama(), "stray.weight": torch.ones(2)}))
    assert same(open_checkpoint("base", f"{memory.uri}/m"), llama())


def test_integers_and_sixteen_bits_are_fine(memory):
    tensors = llama(**{"model.norm": torch.ones(4).half(), "lm_head": draw(10, 4).bfloat16()})
    memory.write("m/model.safetensors", packed({**tensors, "rotary.position_ids": torch.arange(3)}))
    assert same(open_checkpoint("base", f"{memory.uri}/m"), tensors)


def test_a_stamp_stays_until_weights_may_have_changed(any_store):
    ref = save(any_store, "m", llama(), {}, 2)
    stamp = open_checkpoint("base", ref).stamp
    any_store.write("m/config.json", b'{"hidden_size": 4}')
    assert open_checkpoint("snapshot 7", ref).stamp == stamp and len(stamp) == 64
    other = serialise({name: ref.read() + 1 for name, ref in tensors_of(any_store, ref, "model-0").items()})
    any_store.write("m/model-0-of-2.safetensors", other)
    assert open_checkpoint("base", ref).stamp != stamp


def tensors_of(store, ref, file):
    return {name: t for name, t in open_checkpoint("base", ref).tensors.items() if t.key.startswith(file)}


def test_a_copied_folder_has_its_own_stamp(files, tmp_path):
    stamp = open_checkpoint("base", save(files, "one", llama())).stamp
    os.rename(tmp_path / "one", tmp_path / "two")
    assert open_checkpoint("base", f"{tmp_path}/two").stamp == stamp
    save(files, "three", llama())
    assert open_checkpoint("base", f"{tmp_path}/three").stamp != stamp


def test_vocabularies(memory):
    listed = open_checkpoint("base", save(memory, "m", llama(), vocabulary=[["a", -1.0], ["b", -2.0]]))
    assert listed.vocabulary == {"a": 0, "b": 1}
    memory.write("m/tokenizer.json", b'{"model": {}}')
    with pytest.raises(ValueError, match=rf"^{memory.uri}/m/tokenizer.json lists no vocabulary; remove it or"):
        open_checkpoint("base", f"{memory.uri}/m").vocabulary  # noqa: B018


# Tied heads

TIES = {"tie_word_embeddings": True}


@pytest.mark.parametrize(
    ("head", "config", "tied"),
    [
        (None, TIES, True),
        (None, {}, True),
        (None, {"text_config": {"tie_word_embeddings": False}}, False),
        (None, {"tie_word_embeddings": False}, False),
        (None, None, False),
        ("copy", TIES, True),
        ("copy", {}, True),
        ("copy", {"tie_word_embeddings": False}, False),
        ("copy", None, False),
        ("other", TIES, False),
        ("longer", TIES, False),
        ("half", TIES, False),
    ],
)
def test_a_head_may_be_the_embedding(head, config, tied, memory, monkeypatch):
    monkeypatch.setattr(checkpoints, "BLOCK", 64)
    embed = llama()[EMBED]
    heads = {"copy": embed, "other": embed + torch.eye(10, 4), "longer": draw(11, 4), "half": embed.half()}
    found = open_checkpoint("base", save(memory, "m", llama(lm_head=heads.get(head)), config))
    assert found.tied is tied


def test_a_head_at_the_embeddings_bytes_is_tied_without_reading(memory, asked):
    data = llama()[EMBED].numpy().tobytes()
    entry = {"dtype": "F32", "shape": [10, 4], "data_offsets": [0, len(data)]}
    text = json.dumps({EMBED: entry, HEAD: entry}).encode()
    memory.write("m/model.safetensors", struct.pack("<Q", len(text)) + text + data)
    found = open_checkpoint("base", f"{memory.uri}/m")
    asked.clear()
    assert found.tied and asked == []


def test_heads_are_compared_in_blocks_until_they_differ(memory, asked, monkeypatch):
    monkeypatch.setattr(checkpoints, "BLOCK", 64)
    embed = llama()[EMBED]
    for name, other in (("copy", embed), ("apart", embed + torch.eye(10, 4))):
        found = open_checkpoint("base", save(memory, name, llama(lm_head=other), TIES))
        asked.clear()
        assert found.tied is (name == "copy")
        assert [end - begin for _, begin, end in asked] == ([64, 64, 64, 64, 32, 32] if name == "copy" else [64, 64])


def test_layers_with_embeddings_of_their_own_are_passed_over(memory):
    tensors = {"model.layers.1.embed_tokens.weight": torch.zeros(10, 4), **llama()}
    found = open_checkpoint("base", save(memory, "m", tensors))
    assert found.embedding and found.embedding.name == EMBED and found.head is None


# What is refused


def test_folders_that_are_not_there(memory, s3, tmp_path):
    for store in (memory, s3, Store("s3://no-such-bucket/x")):
        refused(f"{store.uri}/none", f"{store.uri}/none does not exist or is empty", kind=Incomplete)
    refused(f"{tmp_path}/none", f"{tmp_path}/none does not exist", "s3://", "ORG/NAME")
    refused("foo://x/y", "foo", kind=ValueError)


@pytest.mark.parametrize(
    ("file", "what", "remedy", "kind"),
    [
        ("config.json", "no other weights", "name a folder with model.safetensors", Incomplete),
        ("pytorch_model.bin", "pickled", "convert them with save_pretrained", ValueError),
        ("pytorch_model-00001-of-00002.bin", "pickled", "convert them with save_pretrained", ValueError),
        ("adapter_model.safetensors", "an adapter", "merge it into its base", ValueError),
        ("model-0-of-2.safetensors", "but model-0-of-2.safetensors", "bring the index", Incomplete),
    ],
)
def test_folders_without_safetensors(file, what, remedy, kind, files, memory):
    for store in (files, memory):
        store.write(f"bad/{file}", b"x")
        shown = f"{store.uri}/bad".removeprefix("file://")
        refused(f"{store.uri}/bad", f"{shown} holds no model.safetensors", what, remedy, kind=kind)


def test_files_that_are_no_safetensors(files, memory, tmp_path):
    for store in (files, memory):
        store.write("pytorch_model.bin", b"x")
        refused(f"{store.uri}/pytorch_model.bin", "pickled", "convert it with save_pretrained(FOLDER)")
    files.write("model.gguf", b"x")
    refused(tmp_path / "model.gguf", f"{tmp_path}/model.gguf is a file, but no .safetensors", "name one")


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_files(keep, near):
    ref = save(near, "m", llama(), shards=2)
    file = "m/model-1-of-2.safetensors"
    near.write(file, near.read(file)[:keep])
    refused(ref, f"{near.uri}/{file} is", "copy or convert model-1-of-2.safetensors again", kind=Incomplete)


def test_corrupt_headers(memory):
    for data in (b"PK\x03\x04" * 100, struct.pack("<Q", 4) + b'{"a"' + bytes(9)):
        memory.write("m/model.safetensors", data)
        refused(f"{memory.uri}/m", "not a safetensors file", "copy or convert", kind=Incomplete)


def test_missing_shards(near):
    ref = save(near, "m", llama(), shards=2)
    near.remove("m/model-1-of-2.safetensors")
    parts = ("model.safetensors.index.json names the shard 'model-1-of-2.safetensors'", "copy it there")
    refused(ref, *parts, kind=Incomplete, who="snapshot 9")


def test_a_link_to_nowhere_is_a_missing_shard(files, tmp_path):
    ref = save(files, "m", llama(), shards=2)
    (tmp_path / "m/model-1-of-2.safetensors").unlink()
    (tmp_path / "m/model-1-of-2.safetensors").symlink_to("gone")
    refused(ref, f"{ref} cannot be read", "model-1-of-2.safetensors", kind=Incomplete)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": []}}', "\udcff"])
def test_broken_indices(text, memory):
    ref = save(memory, "m", llama(), shards=2)
    memory.write("m/model.safetensors.index.json", text.encode(errors="surrogateescape"))
    refused(ref, f"{ref}/model.safetensors.index.json", "copy it again", kind=Incomplete)


@pytest.mark.parametrize("shard", ["../base/model.safetensors", "/etc/hostname", "a/b.safetensors", "..", "", 3])
def test_an_index_stays_in_its_folder(shard, files):
    save(files, "base", llama())
    ref = save(files, "m", llama(), shards=2)
    files.write("m/model.safetensors.index.json", json.dumps({"weight_map": {Q: shard}}).encode())
    refused(ref, repr(shard), "not in the folder", "copy it there")


def test_an_index_that_places_a_tensor_wrongly(memory):
    ref = save(memory, "m", llama(), shards=2)
    memory.write(
        "m/model.safetensors.index.json", json.dumps({"weight_map": {"x": "model-0-of-2.safetensors"}}).encode()
    )
    refused(ref, "model-0-of-2.safetensors lacks tensor x, which", "copy both again", kind=Incomplete)


@pytest.mark.parametrize("text", [b"{", b"3"])
def test_broken_configurations(text, memory):
    ref = save(memory, "m", llama())
    memory.write("m/config.json", text)
    refused(ref, f"{ref}/config.json is not", "copy it again", kind=Incomplete)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        (Q, torch.ones(4, 4).to(torch.float8_e4m3fn)),
        (Q, torch.ones(4, 4, dtype=torch.int8)),
        ("model.layers.0.mlp.up_proj.qweight", torch.ones(4, 4, dtype=torch.int32)),
        ("model.layers.0.mlp.up_proj.weight_packed", torch.ones(4, 4, dtype=torch.int32)),
        ("model.layers.0.mlp.experts.down_proj_blocks", torch.ones(4, 4, dtype=torch.uint8)),
        ("model.layers.0.mlp.experts.down_proj", torch.ones(2, 4, 4).to(torch.float8_e5m2)),
    ],
)
def test_quantized_weights(name, tensor, memory):
    memory.write("m/model.safetensors", packed({**llama(), name: tensor}))
    file = f"{memory.uri}/m/model.safetensors"
    refused(f"{memory.uri}/m", f"tensor {name} of {file} is quantized", "save the model in bf16 or fp32")


def test_adapters_under_the_name_of_a_model(memory):
    ref = save(memory, "m", {f"model.layers.0.self_attn.q_proj.lora_{x}.weight": torch.ones(2, 2) for x in "AB"})
    refused(ref, f"{ref} is an adapter", "merge it into its base")


def test_folders_without_weights(memory):
    memory.write("m/model.safetensors", packed({"position_ids": torch.arange(3)}))
    refused(f"{memory.uri}/m", "hold no bf16, fp16, fp32 or fp64 tensor", "save the model whole")
    refused(save(memory, "e", llama(**{"model.norm": torch.zeros(0, 3)})), "model.norm.weight", "(0, 3)", "whole")


def test_stores_that_cannot_be_read(files, tmp_path, monkeypatch):
    ref = save(files, "m", llama())
    monkeypatch.setattr(Store, "list", lambda *_: (_ for _ in ()).throw(PermissionError("Forbidden\nby someone")))
    refused(ref, f"{ref} cannot be read (Forbidden); check the address and the right to read it")
    monkeypatch.setattr(Store, "list", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_checkpoint("base", ref)


def test_an_unreachable_server_is_one_line(s3, monkeypatch):
    import botocore.exceptions

    error = botocore.exceptions.EndpointConnectionError(endpoint_url="the endpoint")
    monkeypatch.setattr(Store, "list", lambda *_: (_ for _ in ()).throw(error))
    refused(f"{s3.uri}/m", "cannot be read (Could not connect to the endpoint")


# Series of steps


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
