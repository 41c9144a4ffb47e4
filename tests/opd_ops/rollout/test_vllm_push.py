"""Weights pushed into vLLM: the newest are served, whole, and by nothing that was cached or packed of older ones."""

import hashlib
from typing import Any

import pytest
import torch
from torch import Tensor

from opd_ops.models import initialise
from opd_ops.rollout import vllm_build
from tests.opd_ops.rollout.conftest import BOS, LONG, PROMPTS, asked, check, configuration, present, reference, sampling


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
    monkeypatch.setattr(vllm_build, "pack_head", lambda model: None)
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
