"""Synthetic checkpoints as Hugging Face folders: config.json and one shard of safetensors."""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from pipelines.store.objects import Store, normalise
from pipelines.store.tensors import TensorRef, list_tensors
from tests.bench import synthetic
from tests.bench.shapes import Shape


def write_trajectory(folder: Path, shapes: Sequence[Shape], update: str, count: int) -> list[Path]:
    """W0 under folder/base and `count` snapshots, whose updates grow to the usual size, under folder/step-1 and on
    (`synthetic.trajectory`; the matrix at place i has the seeds i and 1000 + i). Returns all paths in that order.
    """
    weights = {shape.name: synthetic.weight("heavy", *shape.extents, seed) for seed, shape in enumerate(shapes)}
    rel = synthetic.UPDATES[update].rel
    moving = {
        name: synthetic.trajectory(w0, update, rel, count, 1000 + seed)
        for seed, (name, w0) in enumerate(weights.items())
    }
    paths = [folder / "base", *(folder / f"step-{step}" for step in range(1, count + 1))]
    for step, path in enumerate(paths):
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps({"model_type": "qwen3", "tie_word_embeddings": True}))
        tensors = {name: next(snapshots) for name, snapshots in moving.items()} if step else weights
        save_file(tensors, path / "model.safetensors")
    return paths


def refs(folder: Path) -> dict[str, TensorRef]:
    """References to all tensors of a folder, by name."""
    return list_tensors(Store(normalise(str(folder))), "model.safetensors")
