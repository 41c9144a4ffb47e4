"""Synthetic checkpoints as Hugging Face folders: config.json, safetensors shards and their index."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path

from pipelines.store.objects import Store, normalise
from pipelines.store.tensors import TensorRef, header
from tests.bench import synthetic
from tests.bench.shapes import EMBEDDING, Shape


def write_pair(folder: Path, shapes: Sequence[Shape], update: str, *, vocabulary: int = 0) -> tuple[Path, Path]:
    """A trajectory of one snapshot: the folders base and step-1."""
    base, step = write_trajectory(folder, shapes, update, 1, vocabulary=vocabulary)
    return base, step


def write_trajectory(
    folder: Path, shapes: Sequence[Shape], update: str, count: int, *, vocabulary: int = 0
) -> list[Path]:
    """Heavy W0 under folder/base and `count` snapshots, whose updates grow to the usual size, under folder/step-1 and
    on (`synthetic.trajectory`; the matrix at place i has the seeds i and 1000 + i). Returns all paths in that order.

    vocabulary > 0 adds an embedding [vocabulary, hidden] of zeros in a shard of its own, which takes no space on disk:
    its bytes are a hole in the file.
    """
    embedding = Shape(EMBEDDING, vocabulary, shapes[0].n) if vocabulary else None
    weights = {shape.name: synthetic.weight("heavy", *shape.extents, seed) for seed, shape in enumerate(shapes)}
    rel = synthetic.UPDATES[update].rel
    moving = {
        name: synthetic.trajectory(w0, update, rel, count, 1000 + seed)
        for seed, (name, w0) in enumerate(weights.items())
    }
    paths = [folder / "base", *(folder / f"step-{step}" for step in range(1, count + 1))]
    for step, path in enumerate(paths):
        path.mkdir(parents=True)
        _write(path, {name: next(snapshots) for name, snapshots in moving.items()} if step else weights, embedding)
    return paths


def refs(folder: Path) -> dict[str, TensorRef]:
    """References to all tensors of a folder, by name."""
    store = Store(normalise(str(folder)))
    return {
        name: ref for file in sorted(folder.glob("*.safetensors")) for name, ref in header(store, file.name).items()
    }


def _write(folder: Path, tensors: dict, embedding: Shape | None) -> None:
    from safetensors.torch import save_file

    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "tie_word_embeddings": True}))
    if embedding is None:
        save_file(tensors, folder / "model.safetensors")
        return
    files = [f"model-{index:05d}-of-00002.safetensors" for index in (1, 2)]
    _write_hole(folder / files[0], embedding)
    save_file(tensors, folder / files[1])
    weight_map = {embedding.name: files[0]} | dict.fromkeys(tensors, files[1])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _write_hole(path: Path, shape: Shape) -> None:
    size = 2 * shape.numel
    entry = {"dtype": "BF16", "shape": shape.extents, "data_offsets": [0, size]}
    text = json.dumps({shape.name: entry}).encode()
    with open(path, "xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)
