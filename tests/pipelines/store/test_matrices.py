"""Each layout, planted from separate weights, gives them back bit for bit by their own bytes, or says what it lacks."""

import pytest
import torch

from pipelines.store.matrices import matrices
from pipelines.store.pairing import pair
from tests.pipelines.store.conftest import (
    ATTENTION,
    EXPERTS,
    HEADS,
    HIDDEN,
    INNER,
    LAYER,
    SIZES,
    draw,
    experts,
    interleaved,
    llama,
    opened,
    separate,
    stacked,
)


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
