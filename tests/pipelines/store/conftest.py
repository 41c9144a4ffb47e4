"""Planted checkpoints, written as other programs write them."""

import json
import uuid

import pytest
import torch

from pipelines.store.objects import Store
from pipelines.store.tensors import serialise


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 1000 * len(shape) + sum(shape)))


def llama(seed=0, rows=10, **changes):
    """An embedding, q and down of one layer, and a norm, of hidden size 4; changes by name without .weight."""
    tensors = {
        "model.embed_tokens": draw(rows, 4, seed=seed),
        "model.layers.0.self_attn.q_proj": draw(6, 4, seed=seed),
        "model.layers.0.mlp.down_proj": draw(4, 8, seed=seed),
        "model.norm": torch.ones(4),
    }
    return {f"{name}.weight": w for name, w in (tensors | changes).items() if w is not None}


def save(store, folder, tensors, config=None, shards=1, vocabulary=None):
    """A Hugging Face folder in a store; returns its URI."""
    names = sorted(tensors)
    files = ["model.safetensors"] if shards == 1 else [f"model-{i}-of-{shards}.safetensors" for i in range(shards)]
    where = {name: files[i % shards] for i, name in enumerate(names)}
    for file in files:
        store.write(f"{folder}/{file}", serialise({name: tensors[name] for name in names if where[name] == file}))
    for file, found in {
        "model.safetensors.index.json": {"weight_map": where} if shards > 1 else None,
        "config.json": config,
        "tokenizer.json": {"model": {"vocab": vocabulary}} if vocabulary is not None else None,
    }.items():
        if found is not None:
            store.write(f"{folder}/{file}", json.dumps(found).encode())
    return f"{store.uri}/{folder}"


@pytest.fixture
def memory():
    return Store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def files(tmp_path):
    return Store(f"file://{tmp_path}")


@pytest.fixture(params=["files", "memory"])
def near(request):
    """An empty store of either kind that needs no server."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def asked(monkeypatch):
    """The (key, begin, end) of every read, as it happens."""
    spans, read = [], Store.read
    whole = lambda self, key, begin=None, end=None: (spans.append((key, begin, end)), read(self, key, begin, end))[1]
    monkeypatch.setattr(Store, "read", whole)
    return spans
