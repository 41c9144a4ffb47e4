"""Each layout, planted from separate weights, gives them back bit for bit by their own bytes; and what is paired."""

import json
import math
import pickle
import struct
from dataclasses import replace

import pytest
import torch

from pipelines.store.checkpoints import open_checkpoint
from pipelines.store.matrices import matrices
from pipelines.store.objects import Store
from pipelines.store.pairing import pair
from tests.pipelines.store.conftest import draw, llama, save

HIDDEN, INNER, HEADS, SHARED, EACH, EXPERTS = 8, 6, 4, 2, 3, 3
ATTENTION = {"hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_key_value_heads": SHARED, "head_dim": EACH}
LAYER = "model.layers.1"


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


def require_parts(found, expected):
    """The matrices `found` hold `expected`, whole and in every block of rows."""
    for name, w in expected.items():
        matrix = found[name]
        read = matrix.read()
        assert matrix.name == name and matrix.shape == tuple(w.shape) == tuple(read.shape)
        assert torch.equal(read, w) and read.dtype == w.dtype and read.is_contiguous()
        assert matrix.nbytes == read.nbytes
        for begin, end in ((0, len(w)), (1, 4), (2, len(w) - 1), (3, 3), (len(w) - 1, len(w))):
            block = matrix.read_rows(begin, end)
            assert torch.equal(block, w[begin:end]) and block.is_contiguous()


# Layouts


def test_plain_names(near):
    tensors = llama(lm_head=draw(10, 4)) | {f"{LAYER}.self_attn.q_proj.bias": torch.ones(6)}
    tensors |= {"scale": torch.tensor(3.0), "conv.weight": draw(2, 3, 5)}
    found = matrices(opened(near, tensors))
    assert {name.removesuffix(".weight") for name in tensors} == found.keys()
    for name, w in tensors.items():
        matrix = found[name.removesuffix(".weight")]
        assert matrix.source == name and torch.equal(matrix.read(), w) and matrix.shape == tuple(w.shape)
    roles = {name: (matrix.layer, matrix.role) for name, matrix in found.items()}
    assert roles["model.layers.0.mlp.down_proj"] == (0, "down")
    assert (roles["model.embed_tokens"], roles["lm_head"]) == ((None, "embed"), (None, "head"))
    assert (roles["model.norm"], roles["scale"]) == ((None, "norm"), (None, "other"))
    assert roles[f"{LAYER}.self_attn.q_proj.bias"] == (1, "bias")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_phi_3(dtype, memory):
    qkv = {name: w.to(dtype) for name, w in separate().items()}
    halves = {
        f"{LAYER}.mlp.{part}_proj": draw(INNER, HIDDEN, seed=i).to(dtype) for i, part in enumerate(("gate", "up"))
    }
    fused = {
        f"{LAYER}.self_attn.qkv_proj.weight": torch.cat(list(qkv.values())),
        f"{LAYER}.mlp.gate_up_proj.weight": torch.cat(list(halves.values())),
    }
    found = matrices(opened(memory, fused, ATTENTION))
    require_parts(found, qkv | halves)
    assert [(matrix.layer, matrix.role) for matrix in found.values()] == [(1, x) for x in ("gate", "up", "q", "k", "v")]
    assert {matrix.source for matrix in found.values()} == fused.keys()


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 12, "num_attention_heads": 4},
        {"hidden_size": 12, "num_attention_heads": 4, "num_key_value_heads": None, "head_dim": None},
        {"text_config": {"hidden_size": 12, "num_attention_heads": 4}, "hidden_size": 5},
    ],
)
def test_heads_follow_the_hidden_size(config, memory):
    qkv = separate(shared=HEADS)
    fused = {f"{LAYER}.self_attn.qkv_proj.weight": torch.cat(list(qkv.values()))}
    require_parts(matrices(opened(memory, fused, config)), qkv)


@pytest.mark.parametrize(
    ("config", "stem"), [({"model_type": "gpt2"}, "transformer.h.1"), (None, "h.1"), ({"n_head": 4}, "h.1")]
)
def test_gpt_2(config, stem, memory):
    qkv = {name: draw(HIDDEN, HIDDEN, seed=i) for i, name in enumerate(separate(f"{stem}.attn"))}
    others = {"attn.c_proj": (HIDDEN, HIDDEN), "mlp.c_fc": (24, HIDDEN), "mlp.c_proj": (HIDDEN, 24)}
    others = {f"{stem}.{name}": draw(*shape, seed=7) for name, shape in others.items()}
    fused = {f"{name}.weight": w.T.contiguous() for name, w in others.items()}
    fused[f"{stem}.attn.c_attn.weight"] = torch.cat(list(qkv.values())).T.contiguous()
    fused |= {f"{stem}.attn.bias": torch.ones(1, 1, 4, 4), f"{stem}.attn.masked_bias": torch.tensor(-1e4)}
    fused |= {"wte.weight": draw(10, HIDDEN), f"{stem}.ln_1.weight": torch.ones(HIDDEN)}
    found = matrices(opened(memory, fused, config))
    require_parts(found, qkv | others | {"wte": fused["wte.weight"]})
    roles = {name.removeprefix(f"{stem}."): (matrix.layer, matrix.role) for name, matrix in found.items()}
    assert roles["attn.q_proj"] == (1, "q") and roles["attn.v_proj"] == (1, "v")
    assert (roles["attn.c_proj"], roles["mlp.c_fc"], roles["mlp.c_proj"]) == ((1, "o"), (1, "up"), (1, "down"))
    assert (roles["attn.bias"], roles["ln_1"], roles["wte"]) == ((1, "bias"), (1, "norm"), (None, "embed"))
    assert torch.equal(found[f"{stem}.attn.masked_bias"].read(), torch.tensor(-1e4))


def test_the_names_of_gpt_2_in_other_models_are_stored_as_they_are(memory):
    weights = {"h.0.attn.c_attn": draw(12, HIDDEN), "h.0.attn.c_proj": draw(HIDDEN, 5)}
    found = matrices(opened(memory, {f"{name}.weight": w for name, w in weights.items()}, {"model_type": "other"}))
    require_parts(found, weights)
    assert matrices(opened(memory, {"h.0.attn.c_attn.weight": draw(12, HIDDEN)}))["h.0.attn.c_attn"].role == "other"


def test_gpt_neox(memory):
    stem = "gpt_neox.layers.1"
    qkv = separate(f"{stem}.attention", shared=HEADS)
    others = {"attention.dense": (8, 12), "mlp.dense_h_to_4h": (32, 8), "mlp.dense_4h_to_h": (8, 32)}
    others = {f"{stem}.{name}": draw(*shape) for name, shape in others.items()}
    others |= {"gpt_neox.embed_in": draw(10, 8), "embed_out": draw(10, 8, seed=1)}
    fused = {f"{name}.weight": w for name, w in others.items()}
    fused[f"{stem}.attention.query_key_value.weight"] = interleaved(qkv)
    found = matrices(opened(memory, fused, {"num_attention_heads": HEADS}))
    require_parts(found, qkv | others)
    roles = {name.removeprefix(f"{stem}."): (matrix.layer, matrix.role) for name, matrix in found.items()}
    assert [roles[f"attention.{part}_proj"] for part in "qkv"] == [(1, "q"), (1, "k"), (1, "v")]
    assert (roles["attention.dense"], roles["mlp.dense_h_to_4h"], roles["mlp.dense_4h_to_h"]) == (
        (1, "o"),
        (1, "up"),
        (1, "down"),
    )
    assert (roles["embed_out"], roles["gpt_neox.embed_in"]) == ((None, "head"), (None, "embed"))


@pytest.mark.parametrize("layout", ["phi3", "neox", "gpt2"])
def test_biases_of_fused_weights_are_split_alike(layout, memory):
    stem = {"phi3": f"{LAYER}.self_attn", "neox": "gpt_neox.layers.1.attention", "gpt2": "h.1.attn"}[layout]
    fused = {"phi3": "qkv_proj", "neox": "query_key_value", "gpt2": "c_attn"}[layout]
    parts = {f"{stem}.{part}_proj.bias": draw(12, seed=i) for i, part in enumerate("qkv")}
    joined = interleaved(parts).flatten() if layout == "neox" else torch.cat(list(parts.values()))
    config = ATTENTION | {"num_key_value_heads": HEADS, "model_type": layout}
    found = matrices(opened(memory, {f"{stem}.{fused}.bias": joined}, config))
    require_parts(found, parts)
    assert {(matrix.layer, matrix.role) for matrix in found.values()} == {(1, "bias")}


def test_separate_experts(memory):
    tensors = experts() | {f"{LAYER}.mlp.shared_expert.gate_proj": draw(INNER, HIDDEN)}
    mixtral = {"w1": "gate", "w2": "down", "w3": "up"}
    tensors |= {f"{LAYER}.block_sparse_moe.experts.11.{name}": draw(6, 6) for name in mixtral}
    found = matrices(opened(memory, {f"{name}.weight": w for name, w in tensors.items()}))
    require_parts(found, tensors)
    assert found[f"{LAYER}.mlp.experts.2.down_proj"].role == "down"
    assert found[f"{LAYER}.mlp.shared_expert.gate_proj"].role == "gate"
    for name, part in mixtral.items():
        matrix = found[f"{LAYER}.block_sparse_moe.experts.11.{name}"]
        assert (matrix.layer, matrix.role) == (1, part)


SIZES = {"hidden_size": HIDDEN, "moe_intermediate_size": INNER, "intermediate_size": 99}


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize(
    ("config", "hidden", "inner"),
    [
        (SIZES, HIDDEN, INNER),
        ({"text_config": {"hidden_size": HIDDEN, "intermediate_size": INNER}}, HIDDEN, INNER),
        ({"model_type": "moe"}, HIDDEN, INNER),
        ({"hidden_size": 6, "intermediate_size": 6}, 6, 6),  # down is square
        ({"hidden_size": 12, "intermediate_size": 6}, 12, 6),  # gate_up is square
    ],
)
def test_stacks_of_experts_in_both_conventions(turn, config, hidden, inner, memory):
    found = experts(hidden=hidden, inner=inner)
    require_parts(matrices(opened(memory, stacked(found, turn), config)), found)
    named = {f"{name}.weight": w for name, w in stacked(found, turn).items()}
    split = matrices(opened(memory, named, config, "named"))
    require_parts(split, found)
    last = split[f"{LAYER}.mlp.experts.2.up_proj"]
    assert (last.layer, last.role, last.index, last.transposed) == (1, "up", 2, turn)


@pytest.mark.parametrize("config", [{"model_type": "gpt_oss"}, {}])
def test_gpt_oss_alternates_gate_and_up(config, memory):
    found = experts()
    fused = stacked(found, turn=True, alternate=True)
    fused[f"{LAYER}.mlp.experts.gate_up_proj_bias"] = torch.ones(EXPERTS, 2 * INNER)
    split = matrices(opened(memory, fused, {"hidden_size": HIDDEN, "intermediate_size": INNER} | config))
    require_parts(split, found)
    assert split[f"{LAYER}.mlp.experts.gate_up_proj_bias"].role == "other"


def test_a_fused_and_a_split_checkpoint_compare(memory):
    qkv = separate()
    base = opened(memory, llama() | {f"{name}.weight": w for name, w in qkv.items()})
    fused = llama() | {f"{LAYER}.self_attn.qkv_proj.weight": torch.cat(list(qkv.values())).bfloat16()}
    found = pair(base, opened(memory, fused, ATTENTION | {"tie_word_embeddings": False}, "fused"))
    assert found.notes == () and qkv.keys() < found.pairs.keys()
    for name in qkv:
        before, after = found.pairs[name]
        assert torch.equal(before.read().bfloat16(), after.read())


# Bytes read


def test_a_part_is_read_by_its_own_bytes(memory, asked):
    qkv = separate()
    fused = {f"{LAYER}.self_attn.qkv_proj.weight": torch.cat(list(qkv.values()))} | {"model.norm.weight": torch.ones(3)}
    found = matrices(opened(memory, fused, ATTENTION))
    asked.clear()
    stem, row = f"{LAYER}.self_attn", HIDDEN * 4
    begin = found[f"{stem}.q_proj"].ref.begin
    for part, first, last in (("q", 0, 12), ("k", 12, 18), ("v", 18, 24)):
        found[f"{stem}.{part}_proj"].read()
        found[f"{stem}.{part}_proj"].read_rows(2, 5)
        whole, rows = asked
        assert whole == ("model.safetensors", begin + first * row, begin + last * row)
        assert rows == ("model.safetensors", begin + (first + 2) * row, begin + (first + 5) * row)
        asked.clear()


def test_an_expert_and_a_head_are_read_by_their_own_bytes(memory, asked):
    stacks = matrices(opened(memory, stacked(experts(), turn=False), SIZES))
    heads = separate("gpt_neox.layers.1.attention", shared=HEADS)
    fused = {"gpt_neox.layers.1.attention.query_key_value.weight": interleaved(heads)}
    neox = matrices(opened(memory, fused, {"num_attention_heads": HEADS}, "neox"))
    turned = matrices(opened(memory, stacked(experts(), turn=True), SIZES, "turned"))
    asked.clear()
    for matrix in stacks.values():
        matrix.read()
    neox["gpt_neox.layers.1.attention.k_proj"].read()
    assert sum(end - begin for _, begin, end in asked) == 4 * (EXPERTS * 3 * HIDDEN * INNER + HEADS * EACH * HIDDEN)
    asked.clear()
    neox["gpt_neox.layers.1.attention.k_proj"].read_rows(EACH - 1, EACH + 1)  # the end of a head, the begin of the next
    assert [end - begin for _, begin, end in asked] == [HIDDEN * 4] * 2
    asked.clear()
    turned[f"{LAYER}.mlp.experts.1.down_proj"].read()
    ((_, begin, end),) = asked
    assert end - begin == 4 * HIDDEN * INNER


def test_rows_that_are_not_there(memory):
    found = matrices(opened(memory, llama() | {"scale": torch.tensor(1.0)}))
    for name, begin, end in (("model.norm", 0, 5), ("model.norm", -1, 2), ("model.norm", 3, 2), ("scale", 0, 1)):
        with pytest.raises(ValueError, match=rf"^{name} has [04] rows, not {begin}..{end}; ask for rows it has$"):
            found[name].read_rows(begin, end)


def test_a_matrix_travels_to_workers(memory):
    found = matrices(opened(memory, stacked(experts(), turn=True), SIZES))
    for matrix in found.values():
        copy = pickle.loads(pickle.dumps(matrix))
        assert copy == matrix and hash(copy) == hash(matrix)
        assert torch.equal(copy.read(), matrix.read())


def test_a_truncated_part_names_file_and_tensor(memory):
    checkpoint = opened(memory, {f"{LAYER}.mlp.gate_up_proj.weight": draw(6, 4)})
    memory.write("m/model.safetensors", memory.read("m/model.safetensors")[:-1])
    assert matrices(checkpoint)[f"{LAYER}.mlp.gate_proj"].read().shape == (3, 4)
    with pytest.raises(ValueError, match=rf"^model.safetensors is truncated: tensor {LAYER}.mlp.gate_up_proj.weight"):
        matrices(checkpoint)[f"{LAYER}.mlp.up_proj"].read()


# What cannot be split


@pytest.mark.parametrize(
    ("name", "shape", "config", "parts"),
    [
        ("self_attn.qkv_proj.weight", (24, 8), None, ("cannot be split without its config",)),
        ("attention.query_key_value.weight", (24, 8), None, ("cannot be split without its config",)),
        ("mlp.experts.down_proj", (3, 8, 6), None, ("cannot be split without its config",)),
        ("self_attn.qkv_proj.weight", (24, 8), {"hidden_size": 8}, ("has num_attention_heads None",)),
        ("self_attn.qkv_proj.weight", (24, 8), {"num_attention_heads": 2}, ("has hidden_size None",)),
        ("self_attn.qkv_proj.weight", (24, 8), {"num_attention_heads": "2"}, ("has num_attention_heads '2'",)),
        ("self_attn.qkv_proj.weight", (25, 8), ATTENTION, ("(25, 8)", "4 heads and 2 key-value heads of 3, 24 rows")),
        ("attention.query_key_value.weight", (25, 8), ATTENTION, ("(25, 8)", "a multiple of 12 rows")),
        ("mlp.experts.down_proj", (3, 8, 7), SIZES, ("(3, 8, 7)", "hidden size 8", "[6, 99] in no way")),
        ("mlp.experts.gate_up_proj", (3, 9, 7), {"model_type": "moe"}, ("(3, 9, 7)", "in no way")),
        ("mlp.experts.down_proj", (3, 8, 8), {"hidden_size": 8}, ("(3, 8, 8)", "both as [expert, in, out] and as")),
    ],
)
def test_fused_tensors_that_the_configuration_does_not_explain(name, shape, config, parts, memory):
    checkpoint = opened(memory, {f"{LAYER}.{name}": torch.ones(shape)}, config)
    with pytest.raises(ValueError) as caught:
        matrices(checkpoint)
    message = str(caught.value)
    assert f"{LAYER}.{name} of base ({memory.uri}/m)" in message and "\n" not in message
    assert message.endswith("; bring the config.json it was saved with")
    for part in parts:
        assert part in message


def test_other_fused_tensors_that_cannot_be_split(memory):
    odd = opened(memory, {f"{LAYER}.mlp.gate_up_proj.weight": draw(5, 4)})
    with pytest.raises(
        ValueError, match=r"has 5 rows, an odd number; save the model with gate_proj and up_proj apart$"
    ):
        matrices(odd)
    gpt2 = opened(memory, {"h.0.attn.c_attn.weight": draw(4, 13)}, {"model_type": "gpt2"})
    with pytest.raises(ValueError, match=r"has shape \(4, 13\), and its config says GPT-2, 3 x n columns; bring"):
        matrices(gpt2)
    both = {f"{LAYER}.mlp.gate_up_proj.weight": draw(6, 4), f"{LAYER}.mlp.up_proj.weight": draw(3, 4)}
    with pytest.raises(
        ValueError, match=r"gate_up_proj.weight and .*up_proj.weight of base .* are both .*up_proj; save"
    ):
        matrices(opened(memory, both))


# Pairs

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
