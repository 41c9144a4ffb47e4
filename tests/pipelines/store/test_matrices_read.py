"""A matrix is read by its own bytes, whole or in rows, wherever it lies in what is stored, and travels to workers."""

import pickle

import pytest
import torch

from pipelines.store.matrices import matrices
from tests.pipelines.store.conftest import (
    ATTENTION,
    EACH,
    EXPERTS,
    HEADS,
    HIDDEN,
    INNER,
    LAYER,
    SIZES,
    draw,
    experts,
    interleaved,
    llama,
    opened,
    separate,
    stacked,
)


def test_a_part_is_read_by_its_own_bytes(memory, asked):
    qkv = separate()
    fused = {f"{LAYER}.self_attn.qkv_proj.weight": torch.cat(list(qkv.values()))} | {"model.norm.weight": torch.ones(3)}
    found = matrices(opened(memory, fused, ATTENTION))
    asked.clear()
    stem, row = f"{LAYER}.self_attn", HIDDEN * 4
    begin = found[f"{stem}.q_proj"].ref.begin
    for part, first, last in (("q", 0, 12), ("k", 12, 18), ("v", 18, 24)):
        found[f"{stem}.{part}_proj"].read()
        found[f"{stem}.{part}_proj"].read_rows(2, 5)
        whole, rows = asked
        assert whole == ("model.safetensors", begin + first * row, begin + last * row)
        assert rows == ("model.safetensors", begin + (first + 2) * row, begin + (first + 5) * row)
        asked.clear()


def test_an_expert_and_a_head_are_read_by_their_own_bytes(memory, asked):
    stacks = matrices(opened(memory, stacked(experts(), turn=False), SIZES))
    heads = separate("gpt_neox.layers.1.attention", shared=HEADS)
    fused = {"gpt_neox.layers.1.attention.query_key_value.weight": interleaved(heads)}
    neox = matrices(opened(memory, fused, {"num_attention_heads": HEADS}, "neox"))
    turned = matrices(opened(memory, stacked(experts(), turn=True), SIZES, "turned"))
    asked.clear()
    for matrix in stacks.values():
        matrix.read()
    neox["gpt_neox.layers.1.attention.k_proj"].read()
    assert sum(end - begin for _, begin, end in asked) == 4 * (EXPERTS * 3 * HIDDEN * INNER + HEADS * EACH * HIDDEN)
    asked.clear()
    neox["gpt_neox.layers.1.attention.k_proj"].read_rows(EACH - 1, EACH + 1)  # the end of a head, the begin of the next
    assert [end - begin for _, begin, end in asked] == [HIDDEN * 4] * 2
    asked.clear()
    turned[f"{LAYER}.mlp.experts.1.down_proj"].read()
    ((_, begin, end),) = asked
    assert end - begin == 4 * HIDDEN * INNER


def test_rows_that_are_not_there(memory):
    found = matrices(opened(memory, llama() | {"scale": torch.tensor(1.0)}))
    for name, begin, end in (("model.norm", 0, 5), ("model.norm", -1, 2), ("model.norm", 3, 2), ("scale", 0, 1)):
        with pytest.raises(ValueError, match=rf"^{name} has [04] rows, not {begin}..{end}; ask for rows it has$"):
            found[name].read_rows(begin, end)


def test_a_matrix_travels_to_workers(memory):
    found = matrices(opened(memory, stacked(experts(), turn=True), SIZES))
    for matrix in found.values():
        copy = pickle.loads(pickle.dumps(matrix))
        assert copy == matrix and hash(copy) == hash(matrix)
        assert torch.equal(copy.read(), matrix.read())


def test_a_truncated_part_names_file_and_tensor(memory):
    checkpoint = opened(memory, {f"{LAYER}.mlp.gate_up_proj.weight": draw(6, 4)})
    memory.write("m/model.safetensors", memory.read("m/model.safetensors")[:-1])
    assert matrices(checkpoint)[f"{LAYER}.mlp.gate_proj"].read().shape == (3, 4)
    with pytest.raises(ValueError, match=rf"^model.safetensors is truncated: tensor {LAYER}.mlp.gate_up_proj.weight"):
        matrices(checkpoint)[f"{LAYER}.mlp.up_proj"].read()
