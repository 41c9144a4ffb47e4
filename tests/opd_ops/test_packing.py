"""A forward pass without padding: its logits are those of the model's own, and so are its gradients."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from opd_ops import packing
from opd_ops.models import response_logits
from opd_ops.training.batches import collate

SIZES = {
    "vocab_size": 41,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama with biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
}


def built(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def ragged(prompts, responses, pad=0):
    draw = torch.Generator().manual_seed(1)
    tokens = lambda count: torch.randint(1, 41, (count,), generator=draw).tolist()
    return collate([tokens(n) for n in prompts], [tokens(n) for n in responses], pad)


BATCHES = {
    "both sides": ragged([3, 7, 1, 5], [6, 2, 9, 9]),
    "left alone": ragged([2, 8, 5], [4, 4, 4]),
    "none": ragged([4, 4], [5, 5]),
    "one row": ragged([3], [2]),
    "one token": ragged([1, 6], [1, 1]),
}


def own(model, batch):
    """Logits of the model's own forward of the padded batch."""
    return model(
        input_ids=batch.ids[:, :-1],
        attention_mask=batch.attention[:, :-1],
        position_ids=batch.positions[:, :-1],
        logits_to_keep=batch.width,
        use_cache=False,
    ).logits


def packed(model, batch):
    return response_logits(model, batch.ids, batch.attention, batch.positions, batch.width)


def gradients(model, logits, mask):
    """Of a loss that weighs every token otherwise."""
    model.zero_grad()
    chosen = torch.log_softmax(logits, -1)[..., 3]
    (chosen * mask * torch.linspace(1, 2, mask.numel()).view_as(mask)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_logprobs_and_gradients_are_those_of_the_padded_batch(config, batch):
    model, other = built(config), built(config)
    assert packing.packs(model)
    logits, wanted = packed(model, batch), own(other, batch)
    assert logits.shape == wanted.shape and logits.isfinite().all()
    seen = batch.mask.bool()
    difference = torch.log_softmax(logits, -1)[seen] - torch.log_softmax(wanted, -1)[seen]
    assert difference.abs().max() < 1e-5
    found, expected = gradients(model, logits, batch.mask), gradients(other, wanted, batch.mask)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-7, name


def test_the_model_itself_computes_what_it_did(monkeypatch):
    model, batch = built(CONFIGS["qwen3"]), BATCHES["both sides"]
    before = own(model, batch)
    packed(model, batch)
    assert torch.equal(own(model, batch), before)
    assert torch.equal(own(model, BATCHES["none"]), own(built(CONFIGS["qwen3"]), BATCHES["none"]))
    assert "packed" not in model.config.to_json_string()


def test_what_other_sequences_hold_changes_nothing():
    """Attention stays inside a sequence, and padding is not seen, whatever token it is."""
    model, batch = built(CONFIGS["llama"]), BATCHES["both sides"]
    logits = packed(model, batch)
    with torch.no_grad():
        alone = ragged([3, 7, 1, 5], [6, 2, 9, 9], pad=7)
        alone.ids[1:][alone.attention[1:].bool()] = 9
        assert torch.allclose(packed(model, alone)[0][:6], logits[0][:6], atol=1e-6)


def test_what_comes_back_from_the_padding_reaches_no_parameter():
    model, batch = built(CONFIGS["qwen3"]), BATCHES["both sides"]
    logits = packed(model, batch)
    model.zero_grad()
    absent = (batch.attention[:, :-1][:, -batch.width :] == 0)[..., None]
    assert absent.any()
    body = [p for name, p in model.named_parameters() if ".layers." in name]
    found = torch.autograd.grad((logits * absent).sum(), body)
    assert all((gradient == 0).all() for gradient in found)


def test_activations_are_computed_again_as_they_were():
    """With checkpoints, a layer runs a second time in the backward pass."""
    plain, again = built(CONFIGS["qwen3"]), built(CONFIGS["qwen3"])
    again.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again.train()
    batch = BATCHES["both sides"]
    found = [gradients(model, packed(model, batch), batch.mask) for model in (plain, again)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=0),
        LlamaConfig(**(SIZES | {"attn_implementation": "eager"})),
    ],
)
def test_a_model_that_is_not_known_passes_as_it_is(config):
    model, batch = built(config), BATCHES["both sides"]
    assert not packing.packs(model)
    assert torch.equal(packed(model, batch), own(model, batch))
    assert not packing.packs(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("part", [lambda model: model, lambda model: model.model, lambda model: model.model.layers[-1]])
def test_hooks_of_what_packing_does_not_call_are_not_passed_over(part):
    model, batch = built(CONFIGS["llama"]), BATCHES["both sides"]
    calls = []
    handle = part(model).register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(packed(model, batch), own(built(CONFIGS["llama"]), batch)) and len(calls) == 1
    handle.remove()
    assert packing.packs(model)
