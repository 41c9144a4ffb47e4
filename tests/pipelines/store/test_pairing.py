"""Which matrices of two checkpoints are compared: by name, tied heads once, common rows; and what is refused."""

import json
import math
import struct
from dataclasses import replace

import pytest
import torch

from pipelines.store.checkpoints import open_checkpoint
from pipelines.store.objects import Store
from pipelines.store.pairing import pair
from tests.pipelines.store.conftest import ATTENTION, LAYER, draw, llama, opened, separate

TIES, APART = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
NOTE = "lm_head is tied to model.embed_tokens: measured once"


@pytest.fixture
def paired(memory):
    """Pairs two planted models, of (tensors, config, vocabulary)."""

    def run(base, other, configs=(None, None), vocabularies=(None, None)):
        start = opened(memory, base, configs[0], "base", "base", vocabularies[0])
        return pair(start, opened(memory, other, configs[1], "other", "snapshot 100", vocabularies[1]))

    return run


def test_alike_models_pair_by_name(paired):
    found = paired(llama(), {name: w.half() for name, w in llama(1).items()})
    assert found.notes == () and list(found.pairs) == sorted(name.removesuffix(".weight") for name in llama())
    for name, (before, after) in found.pairs.items():
        assert torch.equal(before.read(), llama()[f"{name}.weight"])
        assert torch.equal(after.read(), llama(1)[f"{name}.weight"].half())


EMBED = llama()["model.embed_tokens.weight"]


@pytest.mark.parametrize(
    ("heads", "configs", "measured", "notes"),
    [
        ((None, None), (TIES, TIES), False, (NOTE,)),
        ((None, None), (None, {}), False, (NOTE,)),
        ((None, None), (None, None), False, ()),
        ((EMBED, None), (TIES, TIES), False, (NOTE,)),
        ((None, EMBED), (TIES, TIES), False, (NOTE,)),
        ((EMBED, EMBED), (TIES, TIES), False, (NOTE,)),
        ((EMBED, EMBED), (APART, APART), True, ()),
        ((EMBED, EMBED + 1), (TIES, APART), True, ()),
        ((EMBED + 1, EMBED + 1), (TIES, TIES), True, ()),
        ((None, EMBED + 1), (TIES, APART), False, ("only in snapshot 100: lm_head",)),
        ((EMBED, None), (None, None), False, ("only in base: lm_head",)),
    ],
)
def test_tied_heads_are_measured_once(heads, configs, measured, notes, paired):
    found = paired(llama(lm_head=heads[0]), llama(lm_head=heads[1]), configs)
    assert ("lm_head" in found.pairs) is measured
    assert found.notes == notes


def test_heads_that_are_the_same_bytes_are_measured_once(memory, paired):
    data = {"model.embed_tokens.weight": EMBED, "model.layers.0.self_attn.q_proj.weight": draw(6, 4)}
    entries, at = {}, 0
    for name, w in data.items():
        entries[name] = {"dtype": "F32", "shape": list(w.shape), "data_offsets": [at, at := at + w.nbytes]}
    text = json.dumps(entries | {"lm_head.weight": entries["model.embed_tokens.weight"]}).encode()
    whole = struct.pack("<Q", len(text)) + text + b"".join(w.numpy().tobytes() for w in data.values())
    memory.write("alias/model.safetensors", whole)
    alias = open_checkpoint("base", f"{memory.uri}/alias")
    found = pair(alias, replace(alias, who="snapshot 1"))
    assert found.notes == (NOTE,) and "lm_head" not in found.pairs


@pytest.mark.parametrize("rows", [(10, 12), (12, 10)])
def test_common_rows_of_resized_vocabularies_are_measured(rows, paired, asked):
    first, last = rows
    models = [llama(i, rows=n, lm_head=draw(n, 4, seed=i + 5)) for i, n in enumerate(rows)]
    found = paired(*models)
    assert found.notes == tuple(
        f"{name}: {first} -> {last} rows; the 10 common rows are measured" for name in ("lm_head", "model.embed_tokens")
    )
    for name in ("lm_head", "model.embed_tokens"):
        asked.clear()
        for matrix, tensors in zip(found.pairs[name], models, strict=True):
            assert matrix.shape == (10, 4) and matrix.nbytes == 160
            assert torch.equal(matrix.read(), tensors[f"{name}.weight"][:10])
            assert torch.equal(matrix.read_rows(8, 10), tensors[f"{name}.weight"][8:10])
        assert [end - begin for _, begin, end in asked] == [160, 32] * 2


def test_weights_of_one_side_are_named(paired):
    few = {f"only.{i}.weight": torch.ones(2) for i in range(5)}
    many = {f"extra.{i:02}.weight": torch.ones(2) for i in range(17)}
    found = paired(llama() | few, llama() | many)
    assert found.notes == (
        "only in base: only.0, only.1, only.2, only.3, only.4",
        "only in snapshot 100: extra.00, extra.01, extra.02, extra.03, extra.04 ... and 12 more",
    )
    assert len(found.pairs) == len(llama())


def test_other_weights_of_another_shape_are_left_out(paired):
    found = paired(llama(score=torch.ones(2, 4)), llama(score=torch.ones(3, 4)))
    assert found.notes == ("score: shape (2, 4) -> (3, 4); left out",) and "score" not in found.pairs


@pytest.mark.parametrize("wrapped", ["base", "other"])
def test_one_model_may_be_saved_inside_another(wrapped, paired):
    bare = {name.removeprefix("model."): w for name, w in llama().items()}
    models = (llama(), bare) if wrapped == "base" else (bare, llama())
    found = paired(*models)
    assert len(found.pairs) == len(llama()) and ("embed_tokens" in found.pairs) is (wrapped == "other")
    names = ("base", "snapshot 100") if wrapped == "base" else ("snapshot 100", "base")
    assert found.notes == (f"names in {names[0]} begin with 'model.', those in {names[1]} do not: taken as the same",)


Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize(("name", "shape"), [(Q, (4, 6)), (DOWN, (4, 9)), ("model.embed_tokens", (10, 5))])
def test_other_shapes_are_refused(name, shape, paired):
    before = tuple(llama()[f"{name}.weight"].shape)
    with pytest.raises(ValueError) as caught:
        paired(llama(), llama(**{name: torch.ones(shape)}))
    message = str(caught.value)
    assert message.startswith(f"tensor {name}.weight has shape {shape} in snapshot 100 (memory://")
    assert f"and {before} in base (memory://" in message
    assert message.endswith("; give the base these snapshots were trained from")


def test_nothing_to_compare_is_refused(paired):
    other = {"encoder.0.weight": torch.ones(3, 5), "model.norm.weight": torch.ones(4)}
    with pytest.raises(ValueError) as caught:
        paired(llama(), other)
    message = str(caught.value)
    assert message.startswith("nothing is comparable: base (memory://") and "\n" not in message
    assert "model.embed_tokens.weight (10, 4)" in message and "encoder.0.weight (3, 5)" in message
    assert message.endswith("; give the base these snapshots were trained from")


def ids(tokens):
    return {token: i for i, token in enumerate(tokens)}


@pytest.mark.parametrize("swap", [False, True])
def test_tokens_added_at_the_end_do_not_matter(swap, paired):
    vocabularies = (ids("abcd"), ids("abcdef"))
    paired(llama(), llama(rows=12), vocabularies=vocabularies[::-1] if swap else vocabularies)
    paired(llama(), llama(), vocabularies=(None, ids("ab")))


@pytest.mark.parametrize(
    ("before", "after", "token", "has", "had"),
    [
        (ids("abcd"), ids("acbd"), "c", "id 2", "id 1"),
        (ids("abcd"), {"a": 0, "b": 1, "d": 3}, "c", "id 2", "no id"),
        (ids("abcd"), {**ids("abcd"), "e": 2}, "e", "no id", "id 2"),
    ],
)
def test_other_tokenizers_are_refused(before, after, token, has, had, paired):
    with pytest.raises(ValueError) as caught:
        paired(llama(), llama(), vocabularies=(before, after))
    message = str(caught.value)
    assert message.startswith(f"tokenizers differ: token {token!r} has {has} in base (memory://")
    assert f"and {had} in snapshot 100 (memory://" in message and message.endswith("were trained from")


def test_pairs_on_s3(s3: Store, asked):
    qkv = separate()
    fused = llama() | {f"{LAYER}.self_attn.qkv_proj.weight": torch.cat(list(qkv.values()))}
    base, other = (opened(s3, fused, ATTENTION | APART, name, name) for name in ("base", "other"))
    asked.clear()
    found = pair(base, other)
    assert asked == [] and found.notes == ()
    assert torch.equal(found.pairs[f"{LAYER}.self_attn.k_proj"][1].read(), qkv[f"{LAYER}.self_attn.k_proj"])
    ((_, begin, end),) = asked
    assert end - begin == 4 * math.prod(qkv[f"{LAYER}.self_attn.k_proj"].shape)
