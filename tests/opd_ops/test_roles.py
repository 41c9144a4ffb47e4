import pytest

from opd_ops.roles import PROJECTIONS, role

LAYER = "model.layers.12"
TABLE = {
    f"{LAYER}.self_attn.q_proj.weight": (12, "q"),
    f"{LAYER}.self_attn.k_proj.weight": (12, "k"),
    f"{LAYER}.self_attn.v_proj.weight": (12, "v"),
    f"{LAYER}.self_attn.o_proj.weight": (12, "o"),
    f"{LAYER}.mlp.gate_proj.weight": (12, "gate"),
    f"{LAYER}.mlp.up_proj.weight": (12, "up"),
    f"{LAYER}.mlp.down_proj.weight": (12, "down"),
    "layers.0.mlp.down_proj.weight": (0, "down"),
    "model.language_model.layers.3.self_attn.q_proj.weight": (3, "q"),
    f"{LAYER}.self_attn.q_proj.bias": (12, "bias"),
    f"{LAYER}.self_attn.q_norm.weight": (12, "norm"),
    f"{LAYER}.input_layernorm.weight": (12, "norm"),
    f"{LAYER}.mlp.router.weight": (12, "other"),
    f"{LAYER}.self_attn.qkv_proj.weight": (12, "other"),
    f"{LAYER}.mlp.experts.31.gate_proj.weight": (12, "gate"),
    f"{LAYER}.mlp.shared_expert.up_proj.weight": (12, "up"),
    f"{LAYER}.mlp.shared_experts.up_proj.weight": (12, "up"),
    f"{LAYER}.feed_forward.down_proj.weight": (12, "down"),
    f"{LAYER}.mlp.experts.gate_up_proj": (12, "other"),
    f"{LAYER}.self_attn.experts.0.q_proj.weight": (12, "other"),
    "embed_out.weight": (None, "head"),
    "model.embed_tokens.weight": (None, "embed"),
    "transformer.wte.weight": (None, "embed"),
    "lm_head.weight": (None, "head"),
    "model.norm.weight": (None, "norm"),
    "transformer.h.0.ln_1.weight": (None, "norm"),
    "score.weight": (None, "other"),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_name_has_its_layer_and_role(name):
    assert role(name) == TABLE[name]


def test_projections_are_the_seven_decoder_matrices():
    found = [part for name, (_, part) in TABLE.items() if name.startswith(LAYER) and part in PROJECTIONS]
    assert tuple(found[:7]) == PROJECTIONS


@pytest.mark.parametrize("name", ["visual.self_attn.q_proj.weight", "layers.x.mlp.up_proj.weight", "q_proj.weight"])
def test_a_projection_outside_a_numbered_layer_is_none(name):
    assert role(name) == (None, "other")


def test_every_weight_of_the_model_has_a_role(weights):
    _, tensors = weights(0)
    roles = [role(name)[1] for name in tensors]
    assert sorted(roles) == sorted([*PROJECTIONS, "embed", *["norm"] * 5])
