import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from opd_ops.rollout import decoder as module
from opd_ops.rollout.decoder import Decoder, is_plain, supports
from opd_ops.rollout.decoding import SAVED, Decoding, _shared_prefix_length
from opd_ops.rollout.draw import draw
from opd_ops.rollout.hf import HfEngine
from opd_ops.rollout.rollout import Request, Sampling, uniforms

PAD, BOS, EOS, VOCABULARY = 0, 1, 2, 16
RAGGED = [[BOS], [BOS, 3, 4, 5, 6, 7, 3], [BOS, 7, 7], [BOS, 5, 3, 4], [BOS, 12], [BOS, 6, 6, 6, 6], [BOS, 7, 7]]
SHOTS = [BOS, *(3 + i * i % 13 for i in range(40))]
FEWSHOT = [SHOTS + prompt for prompt in ([5], [9, 9, 4], [9, 3], [12, 4, 5, 6], [9, 3])]
SIZES = dict(
    vocab_size=VOCABULARY,
    hidden_size=48,
    num_hidden_layers=3,
    intermediate_size=80,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=128,
    initializer_range=0.15,
    rms_norm_eps=1e-5,
    pad_token_id=PAD,
    bos_token_id=BOS,
    eos_token_id=EOS,
)
LLAMA3 = dict(
    rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=16,
)  # fmt: skip
CONFIGURATIONS = {
    "qwen3 tied": Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
    "qwen3 untied": Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=False, attention_bias=True),
    "qwen2 tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen2 untied": Qwen2Config(**SIZES, tie_word_embeddings=False),
    "llama tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama with biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "llama, as many keys as queries": LlamaConfig(**SIZES | {"num_key_value_heads": 6}),
    "llama, one key head": LlamaConfig(**SIZES | {"num_key_value_heads": 1}),
    "llama3 angles": LlamaConfig(**SIZES, rope_parameters=LLAMA3),
    "linear angles": LlamaConfig(**SIZES, rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0)),
}
OTHERS = {
    "another family": MistralConfig(**SIZES, sliding_window=None),
    "sliding window": Qwen3Config(
        **SIZES, head_dim=8, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "absolute positions": GPT2Config(
        vocab_size=VOCABULARY, n_embd=48, n_layer=2, n_head=4, n_positions=128, initializer_range=0.15,
        bos_token_id=BOS, eos_token_id=EOS,
    ),
    "angles of the length": LlamaConfig(**SIZES, rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0)),
}  # fmt: skip


def build(config, seed=0, dtype=torch.float32):
    """A random model, its norms and biases too, which start as ones and zeros."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def requests(prompts):
    return [Request(prompt=prompt, address=(0, 1, row, 0)) for row, prompt in enumerate(prompts)]


def generate(model, prompts, temperature, *, count=12, batch=64):
    engine = HfEngine(model)
    engine.sync({}, 0)
    sampling = Sampling(max_new_tokens=count, temperature=temperature, eos=EOS, pad=PAD, batch=batch)
    return engine.generate(requests(prompts), sampling, version=0)


def check(model, prompts, temperature, found):
    """Each token, and its logprob, is what the uncached, unpadded forward and the address's uniforms give."""
    for request, row in zip(requests(prompts), found, strict=True):
        u = uniforms(request.address, len(row.tokens))
        with torch.no_grad():
            logits = model(torch.tensor([request.prompt + row.tokens]), use_cache=False).logits[0, :-1]
        logits = logits[len(request.prompt) - 1 :]
        token, logprob = draw(logits, torch.from_numpy(u), temperature)
        assert row.tokens == token.tolist()
        # Another order of fp32 sums: two units in the last place of logits near 10, over the temperature.
        assert row.logprobs == pytest.approx(logprob.tolist(), abs=2e-5)


@pytest.mark.parametrize("fuse", [0, module.FUSE], ids=["in place", "fused"])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_tokens_and_logprobs_are_those_of_the_uncached_forward(name, temperature, fuse, monkeypatch):
    monkeypatch.setattr(module, "FUSE", fuse)
    model = build(CONFIGURATIONS[name])
    assert is_plain(model)
    for prompts in (RAGGED, FEWSHOT):
        check(model, prompts, temperature, generate(model, prompts, temperature))


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("name", OTHERS)
def test_other_models_run_through_their_own_forward_to_the_same_end(name, temperature):
    model = build(OTHERS[name])
    assert not is_plain(model)
    for prompts in (RAGGED, FEWSHOT[:1]) if name == "angles of the length" else (RAGGED, FEWSHOT):
        check(model, prompts, temperature, generate(model, prompts, temperature))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_end_at_different_times_are_dropped_without_a_trace(temperature):
    model = build(CONFIGURATIONS["qwen3 tied"], seed=1)
    prompts = [[BOS, 3 + a, 3 + b] for a in range(8) for b in range(8)]
    found = generate(model, prompts, temperature, count=24)
    lengths = {len(row.tokens) for row in found}
    assert len(lengths) > (3 if temperature == 0 else 10) and any(row.truncated for row in found)
    check(model, prompts, temperature, found)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_row_depends_on_its_call_by_rounding_only(batch):
    model = build(CONFIGURATIONS["qwen3 tied"])
    for prompts in (RAGGED, FEWSHOT):
        together, apart = generate(model, prompts, 1.0), generate(model, prompts, 1.0, batch=batch)
        for one, other in zip(together, apart, strict=True):
            assert (one.tokens, one.truncated) == (other.tokens, other.truncated)
            assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)


def test_a_call_is_repeatable_bit_for_bit_and_ignores_other_calls():
    model = build(CONFIGURATIONS["llama tied"])
    first = generate(model, RAGGED, 1.0, batch=4)
    assert generate(model, RAGGED, 1.0, batch=4) == first
    assert generate(model, RAGGED[:4], 1.0, batch=4) == first[:4]
    assert generate(model, [*RAGGED[:4], [BOS, 9, 9, 9, 9, 9, 9, 9, 9]], 1.0, batch=4)[:4] == first[:4]


def test_weights_that_change_between_calls_are_seen():
    model = build(CONFIGURATIONS["qwen3 tied"])
    before = generate(model, RAGGED, 1.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    after = generate(model, RAGGED, 1.0)
    assert before != after
    check(model, RAGGED, 1.0, after)


def test_bf16_stays_within_bf16_rounding_of_its_own_forward():
    model = build(CONFIGURATIONS["qwen3 tied"], dtype=torch.bfloat16)
    found = generate(model, RAGGED + FEWSHOT, 1.0)
    engine = HfEngine(model)
    scores = engine.score(RAGGED + FEWSHOT, [row.tokens for row in found])
    off = [
        abs(a - b) for row, score in zip(found, scores, strict=True) for a, b in zip(row.logprobs, score, strict=True)
    ]
    # Logits reach 8, where bf16 numbers are 1/32 apart; some layers' rounding adds up.
    assert sum(off) / len(off) < 0.05 and max(off) < 0.25


def test_no_row_becomes_nan_beside_a_prompt_much_longer_than_its_own():
    model = build(CONFIGURATIONS["qwen3 tied"])
    prompts = [[BOS], [BOS, *(3 + i % 13 for i in range(60))]]
    check(model, prompts, 1.0, generate(model, prompts, 1.0))


def test_a_shared_prefix_and_equal_prompts_are_computed_once(monkeypatch):
    shapes, forward = [], Decoder.forward
    monkeypatch.setattr(
        Decoder, "forward", lambda self, ids, *rest: shapes.append(ids.shape) or forward(self, ids, *rest)
    )
    model = build(CONFIGURATIONS["qwen3 tied"])
    with torch.inference_mode():
        logits = Decoding(Decoder(model), FEWSHOT, max_new_tokens=2, pad=PAD).logits
    assert shapes == [(1, len(SHOTS)), (4, 4)] and logits.shape == (5, VOCABULARY)
    assert torch.equal(logits[2], logits[4])


def test_the_shared_prefix_leaves_each_prompt_a_token_and_must_be_worth_it():
    long = tuple(range(SAVED))
    assert _shared_prefix_length([(*long, 1), (*long, 2)]) == SAVED
    assert _shared_prefix_length([(*long, 1), (*long, 1, 2)]) == SAVED
    assert _shared_prefix_length([(*long, 1, 1), (*long, 2), (*long[:40], 0, 0)]) == 40
    assert _shared_prefix_length([(*long[:-1], 900), (*long[:-1], 901)]) == 0, "saves less than a pass costs"
    assert _shared_prefix_length([long]) == 0


def test_rows_can_be_kept_repeated_and_reordered():
    model = build(CONFIGURATIONS["qwen2 tied"])
    with torch.inference_mode():
        call = Decoding(Decoder(model), RAGGED[:3], max_new_tokens=3, pad=PAD)
        call.advance(torch.tensor([5, 6, 7]))
        call.select_rows(torch.tensor([2, 0, 2]))
        found = call.advance(torch.tensor([8, 9, 10]))
    for row, prefix in zip(found, ([*RAGGED[2], 7, 8], [*RAGGED[0], 5, 9], [*RAGGED[2], 7, 10]), strict=True):
        with torch.no_grad():
            assert torch.allclose(row, model(torch.tensor([prefix])).logits[0, -1], atol=2e-5)  # order of fp32 sums


@pytest.mark.parametrize("name", OTHERS)
def test_unknown_configurations_are_not_supported(name):
    assert not supports(OTHERS[name])
    with pytest.raises(ValueError, match="does not know"):
        Decoder(build(OTHERS[name]))


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
        {"layer_types": ["full_attention", "chunked_attention", "full_attention"]},
        {"quantization_config": {"quant_method": "gptq"}},
        {"sliding_window": 8},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_known_family_with_an_unknown_setting_is_not_supported(change):
    config = Qwen3Config(**SIZES, head_dim=8)
    assert supports(config)
    for name, value in change.items():
        setattr(config, name, value)
    assert not supports(config)


def test_a_model_whose_layers_were_replaced_or_hooked_is_not_plain():
    model = build(CONFIGURATIONS["llama tied"])
    handle = model.model.layers[1].mlp.up_proj.register_forward_hook(lambda *_: None)
    assert not is_plain(model)
    handle.remove()
    assert is_plain(model)

    class Adapter(torch.nn.Linear):
        pass

    model.model.layers[0].self_attn.q_proj = Adapter(48, 48, bias=False)
    assert not is_plain(model)
