import json

import torch

from tests.bench import synthetic
from tests.bench.checkpoints import refs, write_pair
from tests.bench.shapes import EMBEDDING, Shape

NAME = "model.layers.0.self_attn.q_proj.weight"


def test_a_pair_is_w0_and_w0_plus_an_update(tmp_path):
    base, step = write_pair(tmp_path, [Shape(NAME, 64, 48)], "sft")
    before, after = (refs(folder)[NAME].read() for folder in (base, step))
    assert torch.equal(before, synthetic.weight("heavy", 64, 48, 0))
    assert torch.equal(after, synthetic.updated(before, "sft", 1e-2, 1000))
    assert sorted(path.name for path in base.iterdir()) == ["config.json", "model.safetensors"]


def test_an_embedding_is_a_shard_that_takes_no_space(tmp_path):
    base, step = write_pair(tmp_path, [Shape(NAME, 64, 48)], "rl", vocabulary=100_000)
    found = refs(step)
    assert set(found) == {NAME, EMBEDDING} and found[EMBEDDING].shape == (100_000, 48)
    assert not found[EMBEDDING].read().any()
    shard = base / "model-00001-of-00002.safetensors"
    assert shard.stat().st_size > 9_600_000 and shard.stat().st_blocks * 512 < 1_000_000
    weight_map = json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]
    assert {name: ref.key for name, ref in refs(base).items()} == weight_map
