"""Sizes from shapes alone against counts by hand, and against what a real forward keeps."""

from typing import Any

import pytest
import torch

from opd_ops import models
from opd_ops.recipe import FinalOf, Weights
from pipelines.runs.resources.sizes import count_sizes, known_sizes
from pipelines.studies import qwen3, smollm, tiny

SMALL = qwen3.QWEN3_8B | {
    "vocab_size": 64,
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "intermediate_size": 256,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
}


def by_hand(raw):
    """Weights of an untied Qwen3: embedding and head, and per layer q o, k v, gate up down and four norms."""
    h, head = raw["hidden_size"], raw["head_dim"]
    q, kv = raw["num_attention_heads"] * head, raw["num_key_value_heads"] * head
    layer = 2 * h * q + 2 * h * kv + 3 * h * raw["intermediate_size"]
    norms = 2 * h + 2 * head
    embedding = raw["vocab_size"] * h
    return raw["num_hidden_layers"] * (layer + norms) + 2 * embedding + h, raw["num_hidden_layers"] * layer + embedding


@pytest.mark.parametrize(("raw", "published"), [(qwen3.QWEN3_8B, 8.19e9), (qwen3.QWEN3_32B, 32.8e9)], ids=["8B", "32B"])
def test_the_papers_models_have_their_published_sizes(raw, published):
    found = count_sizes(raw)
    assert (found.parameters, found.products) == by_hand(raw)
    assert f"{found.parameters:.2e}" == f"{published:.2e}"  # published with three digits


def test_a_tied_embedding_counts_once_and_is_multiplied_with():
    found = known_sizes(tiny.study(), tiny.opd().start)
    norms = 2 * (2 * 128 + 2 * 32) + 128
    assert found.parameters == 398_080 and found.products == found.parameters - norms


@pytest.mark.parametrize(("dtype", "width"), [(torch.bfloat16, 2), (torch.float32, 4)])
def test_a_block_keeps_what_its_own_forward_saves_for_the_backward_pass(dtype, width):
    tokens = 2 * 64

    def saved(layers):
        config = models.configuration_from(SMALL | {"num_hidden_layers": layers})
        model = models.AutoModelForCausalLM.from_config(config, dtype=dtype)
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.model(input_ids=torch.zeros((2, 64), dtype=torch.long), use_cache=False)
        return sum(size for size, _ in kept.values())

    assert saved(3) - saved(2) == tokens * count_sizes(SMALL).block(width)


def test_recomputed_activations_are_the_blocks_inputs_and_one_block():
    small = count_sizes(SMALL)
    assert small.activations(10, 2, checkpointed=False) == 10 * 2 * small.block(2)
    assert small.activations(10, 2, checkpointed=True) == 10 * (2 * 96 * 2 + small.block(2))


def test_the_cache_is_as_large_as_the_models():
    from transformers import DynamicCache

    config = models.configuration_from(SMALL)
    model = models.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    cache: Any = DynamicCache(config=config)
    with torch.no_grad():
        model(input_ids=torch.zeros((3, 7), dtype=torch.long), past_key_values=cache, use_cache=True)
    held = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert held == 3 * 7 * count_sizes(SMALL).cache(2)


def test_a_forward_costs_what_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    config = models.configuration_from(SMALL)
    model = models.AutoModelForCausalLM.from_config(config, attn_implementation="eager")  # fused ones are not counted
    length = 512
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros((2, length), dtype=torch.long), use_cache=False)
    small = count_sizes(SMALL)
    half = 2 * 2 * length**2 * 6 * 32 * 2  # of the square of attention, which eager attention computes whole
    assert counter.get_total_flops() == small.forward(2, length) + half


def test_a_start_is_followed_to_where_its_shape_is_known():
    study = tiny.study()
    assert known_sizes(study, tiny.opd().start).hidden == 128
    assert known_sizes(qwen3.study(), qwen3.opd().start).hidden == 4096
    assert known_sizes(qwen3.study(), qwen3.opd().objective.teacher).hidden == 5120
    assert known_sizes(smollm.study(), smollm.sft().start) is None
    assert known_sizes(study, FinalOf(recipe="tiny.none")) is None
    assert known_sizes(study, Weights(ref="Qwen/Qwen3-32B")) is None
