"""The contract on vLLM itself, for the pinned version: what it draws and scores equals the uncached forward."""

import numpy as np
import pytest
import torch

from opd_ops.models import initialise
from opd_ops.rollout.parity import compare
from opd_ops.rollout.rollout import Request
from opd_ops.rollout.vllm import sample_seed
from tests.opd_ops.rollout.conftest import (
    BOS,
    EOS,
    FP32,
    LENGTH,
    LONG,
    PAD,
    PROMPTS,
    VOCABULARY,
    asked,
    check,
    configuration,
    logprobs,
    present,
    reference,
    sampling,
)


def test_a_seed_is_63_bits_of_the_address():
    addresses = [(s, step, i, k) for s in range(4) for step in range(4) for i in range(8) for k in range(4)]
    seeds = [sample_seed(address) for address in addresses]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0 and 2**62 < max(seeds) < 2**63
    assert seeds == [sample_seed(address) for address in addresses]


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
