"""What is no whole checkpoint of plain weights is refused in one line with its remedy."""

import json
import struct

import pytest
import torch
from safetensors.torch import save as packed

from pipelines.store.checkpoints import Incomplete, open_checkpoint
from pipelines.store.objects import Store
from tests.pipelines.store.conftest import llama, refused, save

Q = "model.layers.0.self_attn.q_proj.weight"


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
