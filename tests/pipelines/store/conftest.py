"""Planted checkpoints, written as other programs write them."""

import json
import uuid

import pytest
import torch

from pipelines.store.checkpoints import open_checkpoint
from pipelines.store.objects import Store
from pipelines.store.tensors import serialise

HIDDEN, INNER, HEADS, SHARED, EACH, EXPERTS = 8, 6, 4, 2, 3, 3
ATTENTION = {"hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_key_value_heads": SHARED, "head_dim": EACH}
SIZES = {"hidden_size": HIDDEN, "moe_intermediate_size": INNER, "intermediate_size": 99}
LAYER = "model.layers.1"


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


def separate(stem=f"{LAYER}.self_attn", heads=HEADS, shared=SHARED, each=EACH):
    """q, k and v of [heads x each, hidden], apart."""
    rows = {"q": heads * each, "k": shared * each, "v": shared * each}
    return {f"{stem}.{part}_proj": draw(n, HIDDEN, seed=i) for i, (part, n) in enumerate(rows.items())}


def experts(stem=f"{LAYER}.mlp.experts", hidden=HIDDEN, inner=INNER):
    """gate, up and down of every expert, apart."""
    shapes = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
    parts = [(e, i, part) for e in range(EXPERTS) for i, part in enumerate(shapes)]
    return {f"{stem}.{e}.{part}_proj": draw(*shapes[part], seed=10 * e + i) for e, i, part in parts}


def stacked(found, turn, alternate=False):
    """The two stacks of experts; turn: as [expert, in, out]; alternate: gate and up columns in turn."""
    gates, ups, downs = (
        torch.stack([w for name, w in found.items() if f".{part}_proj" in name]) for part in ("gate", "up", "down")
    )
    fused = torch.stack([gates, ups], 2).flatten(1, 2) if alternate else torch.cat([gates, ups], 1)
    stem = next(iter(found)).rpartition(".0.")[0]
    stacks = {f"{stem}.gate_up_proj": fused, f"{stem}.down_proj": downs}
    return {name: w.transpose(1, 2).contiguous() if turn else w for name, w in stacks.items()}


def interleaved(found):
    """query_key_value of q, k and v of as many heads."""
    return torch.stack([w.view(HEADS, EACH, -1) for w in found.values()], 1).reshape(3 * HEADS * EACH, -1)


def opened(store, tensors, config=None, folder="m", who="base", vocabulary=None):
    return open_checkpoint(who, save(store, folder, tensors, config, vocabulary=vocabulary))


def same(checkpoint, tensors):
    """The checkpoint holds these tensors and no others."""
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
