"""A run whose parent was trained again under its name is left out of comparisons, and named."""

from types import SimpleNamespace

import pytest
import torch

from pipelines.runs.verdicts.parents import find_orphans
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

STUDY = SimpleNamespace(every_arm=lambda: [SimpleNamespace(name="mine.sft")], seeds=(0, 1))


def register(store, recipe, seed, start, inputs):
    trajectory = Trajectory(store, recipe, seed)
    identity = {"study": "mine", "start": start}
    trajectory.register({"identity": identity, "fingerprint": recipe, "inputs": inputs, "model": {}, "provenance": {}})
    return trajectory


@pytest.fixture
def store(tmp_path):
    store = Store(f"file://{tmp_path}/store")
    parent = register(store, "mine.base", 0, {"kind": "fresh"}, {})
    for step in (0, 5):
        parent.commit(step, {"weight": torch.full((2, 2), float(step))}, None)
    parent.finish({"step": 5, "digest": parent.digest(5), "snapshots": [0, 5], "evaluation": []})
    return store


def test_a_run_of_its_parents_weights_counts(store):
    digest = Trajectory(store, "mine.base", 0).digest(5)
    register(store, "mine.sft", 0, {"kind": "final", "recipe": "mine.base", "seed": 0}, {"start": digest})
    register(store, "mine.sft", 1, {"kind": "snapshot", "recipe": "mine.base", "seed": 0, "step": 5}, {"start": digest})
    assert find_orphans(store, STUDY) == []


@pytest.mark.parametrize(
    "start",
    [
        {"kind": "final", "recipe": "mine.base", "seed": 0},
        {"kind": "final", "recipe": "mine.base", "seed": None},
        {"kind": "snapshot", "recipe": "mine.base", "seed": 0, "step": 0},
    ],
)
def test_a_run_of_other_weights_is_named_with_its_remedy(store, start):
    register(store, "mine.sft", 0, start, {"start": "0123"})
    (orphan,) = find_orphans(store, STUDY)
    assert str(orphan) == (
        "mine.sft seed 0 is left out: it was made from other weights than mine.base seed 0 holds now; "
        "move it aside and train it again: opd rm mine.sft/0"
    )


def test_an_absent_or_unfinished_parent_says_nothing(store):
    register(store, "mine.sft", 0, {"kind": "final", "recipe": "gone.base", "seed": 0}, {"start": "0123"})
    register(store, "mine.other", 0, {"kind": "fresh"}, {})
    register(store, "mine.sft", 1, {"kind": "final", "recipe": "mine.other", "seed": 0}, {"start": "0123"})
    assert find_orphans(store, STUDY) == []
