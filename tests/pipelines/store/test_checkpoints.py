"""Every kind of REF opens to the same tensors from headers alone, and a head may be the embedding."""

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
from pipelines.store.tensors import serialise
from pipelines.store.trajectory import Trajectory
from tests.pipelines.store.conftest import draw, llama, refused, same, save

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


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


def test_own_snapshots_that_are_kept_beside_another(near):
    run = Trajectory(near, "tiny.opd", 3)
    start = {name: torch.randn(64, 64, generator=torch.Generator().manual_seed(1)) for name in llama()}
    later = {name: weight + 1e-6 for name, weight in start.items()}
    run.commit(0, start, None)
    run.commit(1, later, 0)
    folder = f"{near.uri}/runs/tiny.opd/seed-3/step-0000000"
    found = open_checkpoint("base", f"{folder}1")
    assert all(ref.code for ref in found.tensors.values()) and same(found, later)
    near.remove("runs/tiny.opd/seed-3/step-00000000")
    refused(f"{folder}1", "is kept beside step-00000000", "holds nothing: bring it back")


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
    refused(ref, f"{ref}/manifest.json has layout 99; this version reads layouts 1 to 3")
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
