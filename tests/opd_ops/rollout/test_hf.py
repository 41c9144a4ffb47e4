import hashlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from opd_ops.rollout import hf
from opd_ops.rollout.decoding import Decoding
from opd_ops.rollout.hf import HfEngine
from opd_ops.rollout.model_decoding import ModelDecoding
from opd_ops.rollout.rollout import Request, Sampling, uniforms

PAD, BOS, EOS, VOCABULARY = 0, 1, 2, 8
PROMPTS = [[BOS], [BOS, 3, 4, 5, 6, 7, 3], [BOS, 7, 7], [BOS, 5, 3, 4], [BOS, 4], [BOS, 6, 6, 6, 6]]


def requests(prompts, step=1):
    return [Request(prompt=prompt, address=(0, step, row, 0)) for row, prompt in enumerate(prompts)]


def sampling(**changes):
    return Sampling(**(dict(max_new_tokens=12, temperature=1.0, eos=EOS, pad=PAD) | changes))


def engine(model, version=0, **options):
    served = HfEngine(model, **options)
    served.sync(dict(model.named_parameters()), version)
    return served


def generate(model, prompts, **changes):
    return engine(model).generate(requests(prompts), sampling(**changes), version=0)


def chain(table):
    """A model whose next-token log-odds are a row of `table` [V, V], chosen by the last token.

    Its layers add nothing, embeddings are scaled unit vectors and the head is the table.
    """
    size = len(table)
    config = LlamaConfig(
        vocab_size=size, hidden_size=size, num_hidden_layers=1, intermediate_size=8, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=False, rms_norm_eps=1e-12, pad_token_id=PAD, bos_token_id=BOS,
        eos_token_id=EOS,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.copy_(table.T / math.sqrt(size))
    return model


def follows(pairs):
    table = torch.full((VOCABULARY, VOCABULARY), -50.0)
    for token, following in pairs.items():
        table[token, following] = 50.0
    return chain(table)


@pytest.fixture(params=["decoder", "own forward"])
def path(request, monkeypatch):
    """Both ways to run a model, and the batch sizes of the steps after the prompts."""
    kind = Decoding if request.param == "decoder" else ModelDecoding
    if kind is ModelDecoding:
        monkeypatch.setattr(hf, "is_plain", lambda model: False)
    sizes, advance = [], kind.advance
    monkeypatch.setattr(kind, "advance", lambda self, tokens: sizes.append(len(tokens)) or advance(self, tokens))
    return sizes


def test_a_chain_is_followed_and_finished_rows_are_dropped_when_they_halve_the_batch(path):
    model = follows({BOS: 5, 5: EOS, 3: 4, 4: 6, 6: 7, 7: 3, EOS: 5, PAD: 5})
    found = generate(model, [[BOS], [BOS, 3], [BOS, 7, 5]], max_new_tokens=5)
    assert [row.tokens for row in found] == [[5, EOS], [4, 6, 7, 3, 4], [EOS]]
    assert [row.truncated for row in found] == [False, True, False]
    assert path == [3, 1, 1, 1]
    assert all(row.logprobs == pytest.approx([0.0] * len(row.tokens), abs=1e-6) for row in found)


def test_generation_stops_when_every_row_has_ended(path):
    table = torch.zeros(VOCABULARY, VOCABULARY)
    table[:, EOS] = 50.0
    assert [row.tokens for row in generate(chain(table), [[BOS], [BOS, 3]])] == [[EOS], [EOS]]
    assert path == []


def test_frequencies_are_the_softmax_at_the_temperature(path):
    table = torch.linspace(-2, 3, VOCABULARY).expand(VOCABULARY, -1)
    found = generate(chain(table), [[BOS, 3]] * 4000, max_new_tokens=1, temperature=2.0, batch=500)
    p = torch.softmax(table[0].double() / 2.0, -1).numpy()
    counts = np.bincount([row.tokens[0] for row in found], minlength=VOCABULARY)
    assert (abs(counts - 4000 * p) < 4 * np.sqrt(4000 * p)).all()  # four standard deviations
    for row in found[:50]:
        assert row.logprobs[0] == pytest.approx(math.log(p[row.tokens[0]]), abs=1e-6)


def test_a_response_ends_with_its_first_eos_or_is_truncated(path, model):
    found = generate(model, PROMPTS * 20, max_new_tokens=6)
    assert len({len(row.tokens) for row in found}) > 3
    for row in found:
        assert EOS not in row.tokens[:-1] and len(row.tokens) == len(row.logprobs)
        assert row.truncated == (row.tokens[-1] != EOS)
        assert len(row.tokens) == 6 or not row.truncated
    assert 0 < sum(row.truncated for row in found) < len(found)


def test_of_several_ends_the_first_ends_a_response_and_nothing_else_changes(path, model):
    other = EOS + 1
    alone, both = (generate(model, PROMPTS * 20, max_new_tokens=6, stops=stops) for stops in ((), (other,)))
    assert any(other in row.tokens[:-1] for row in alone)
    for row, cut in zip(alone, both, strict=True):
        length = row.tokens.index(other) + 1 if other in row.tokens else len(row.tokens)
        assert (cut.tokens, cut.logprobs) == (row.tokens[:length], row.logprobs[:length])
        assert cut.truncated == (cut.tokens[-1] not in (EOS, other))


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_both_paths_agree(model, temperature, monkeypatch):
    fused = generate(model, PROMPTS, temperature=temperature)
    monkeypatch.setattr(hf, "is_plain", lambda model: False)
    for one, other in zip(fused, generate(model, PROMPTS, temperature=temperature), strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)  # another order of fp32 sums


def test_responses_come_in_the_order_of_the_requests_whatever_the_batch(path, model):
    whole = generate(model, PROMPTS)
    for batch in (1, 4):
        assert [row.tokens for row in generate(model, PROMPTS, batch=batch)] == [row.tokens for row in whole]
    assert generate(model, []) == []


def test_uniforms_are_those_of_the_address(path):
    flat = chain(torch.zeros(VOCABULARY, VOCABULARY))
    served = engine(flat)
    asked = [Request(prompt=[BOS], address=(3, 4, row, 1)) for row in range(30)]
    for request, row in zip(asked, served.generate(asked, sampling(eos=99), version=0), strict=True):
        # Eight equal tokens: the draw is the integer part of 8 u.
        assert row.tokens == [int(8 * u) for u in uniforms(request.address, 12)]
        assert row.truncated


def test_scores_are_the_logprobs_that_sampling_gave(path, model):
    found = generate(model, PROMPTS)
    scores = engine(model).score(PROMPTS, [row.tokens for row in found])
    for row, score in zip(found, scores, strict=True):
        assert row.logprobs == pytest.approx(score, abs=1e-5)  # another order of fp32 sums


def test_scores_are_at_temperature_1_and_of_the_response_only():
    table = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0))
    prompts, responses = [[BOS, 4], [BOS, 3, 5]], [[6, 7, EOS], [4]]
    p = torch.log_softmax(table, -1)
    expected = [[p[4, 6], p[6, 7], p[7, EOS]], [p[5, 4]]]
    for score, row in zip(engine(chain(table)).score(prompts, responses), expected, strict=True):
        assert score == pytest.approx([float(x) for x in row], abs=1e-5)


def test_a_model_in_training_mode_samples_as_in_evaluation_and_is_left_training(path, weights):
    config, values = weights(0)
    config.attention_dropout = 0.5
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.load_state_dict(values, strict=False)
    calm = generate(model.eval(), PROMPTS), engine(model).score(PROMPTS, PROMPTS)
    model.gradient_checkpointing_enable()
    model.train()
    assert (generate(model, PROMPTS), engine(model).score(PROMPTS, PROMPTS)) == calm
    assert model.training and model.model.layers[0].training


def test_generate_refuses_weights_of_another_version(model):
    served = HfEngine(model)
    assert (served.version, served.name, served.release) == (-1, "hf", transformers.__version__)
    with pytest.raises(ValueError, match=r"version 4 .* holds version -1"):
        served.generate(requests(PROMPTS), sampling(), version=4)
    served.sync({}, 5)
    with pytest.raises(ValueError, match=r"version 4 .* holds version 5"):
        served.generate(requests(PROMPTS), sampling(), version=4)
    assert {row.version for row in served.generate(requests(PROMPTS), sampling(), version=5)} == {5}


def test_an_empty_prompt_is_an_error(model):
    with pytest.raises(ValueError, match="empty prompt"):
        generate(model, [[BOS], []])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_has_diverged_is_an_error(model, temperature):
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nan
    with pytest.raises(FloatingPointError, match="diverged"):
        generate(model, PROMPTS, temperature=temperature)


def test_a_shared_push_copies_nothing(model, weights):
    before = {name: p.clone() for name, p in model.named_parameters()}
    done = HfEngine(model).sync(weights(1)[1], 7)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert (done.version, done.tensors, done.digest) == (7, len(before), "")
    assert done.bytes == sum(4 * p.numel() for p in before.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_owned_model_serves_what_was_pushed(weights, dtype):
    config, values = weights(1)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    served = HfEngine(model, shared=False)
    done = served.sync(values, 3)
    assert served.version == 3
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype and torch.equal(parameter, values[name].to(dtype))
    total = hashlib.sha256()
    for name in sorted(values):
        # The upper 16 bits of an fp32 number that is a bf16 number.
        rounded = values[name].to(torch.bfloat16).float().numpy()
        total.update((rounded.view(np.uint32) >> 16).astype("<u2").tobytes())
    assert done.digest == total.hexdigest()
    assert (done.tensors, done.bytes) == (len(values), sum(v.numel() for v in values.values()) * dtype.itemsize)

    fresh = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    fresh.load_state_dict({name: value.to(dtype) for name, value in values.items()}, strict=False)
    assert served.generate(requests(PROMPTS), sampling(), version=3) == [
        replace(row, version=3) for row in generate(fresh, PROMPTS)
    ]


def test_digests_tell_weights_apart(model, weights):
    served = HfEngine(model, shared=False)
    first, again, other = (served.sync(weights(seed)[1], seed).digest for seed in (1, 1, 2))
    assert first == again != other


def test_an_incomplete_push_is_refused_before_anything_is_copied(model, weights):
    _, values = weights(1)
    served = HfEngine(model, shared=False)
    before = {name: p.clone() for name, p in model.named_parameters()}
    norm, embedding = "model.norm.weight", "model.embed_tokens.weight"
    rest = {name: value for name, value in values.items() if name != norm}
    with pytest.raises(ValueError, match=f"lack {norm}"):
        served.sync(rest, 1)
    with pytest.raises(ValueError, match=r"no lm_head\.weight"):
        served.sync(values | {"lm_head.weight": values[embedding]}, 1)
    with pytest.raises(ValueError, match=rf"{norm} .* \(1,\), .* \(32,\)"):
        served.sync(values | {norm: torch.ones(1)}, 1)
    assert served.version == -1
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("shared", [True, False])
def test_sleep_on_a_cpu_changes_nothing(model, shared):
    served = engine(model, 2, shared=shared)
    before = served.generate(requests(PROMPTS), sampling(), version=2)
    served.sleep()
    served.wake()
    assert served.generate(requests(PROMPTS), sampling(), version=2) == before


def test_uniforms_are_keyed_by_their_address_alone():
    first = uniforms((3, 5, 7, 1), 8)
    assert first.dtype == np.float64 and ((first >= 0) & (first < 1)).all()
    assert np.array_equal(first, uniforms((3, 5, 7, 1), 8))
    assert np.array_equal(first[:4], uniforms((3, 5, 7, 1), 4)), "a longer limit continues the same draws"
    for other in ((4, 5, 7, 1), (3, 6, 7, 1), (3, 5, 8, 1), (3, 5, 7, 2), (5, 3, 7, 1), (3, 5, 1, 7)):
        assert not np.array_equal(first, uniforms(other, 8))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_logprobs_are_those_of_the_forward_and_an_owned_model_sleeps(path, weights, dtype):
    config, values = weights(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).to("cuda")
    served = HfEngine(model, shared=False)
    served.sync(values, 1)
    found = served.generate(requests(PROMPTS), sampling(), version=1)
    scores = served.score(PROMPTS, [row.tokens for row in found])
    for row, score in zip(found, scores, strict=True):
        # Another order of sums; logits reach 8, where bf16 numbers are 1/32 apart.
        assert row.logprobs == pytest.approx(score, abs=1e-4 if dtype == torch.float32 else 0.25)
    served.sleep()
    assert model.device.type == "cpu" and served.version == -1
    served.wake()
    served.sync(values, 2)
    assert model.device.type == "cuda"
    again = served.generate(requests(PROMPTS), sampling(), version=2)
    assert [row.tokens for row in again] == [row.tokens for row in found]
