"""A miniature study that trains in a second, stores to keep it in, and one Ray session for all tests that need it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from opd_ops.recipe import (
    AdamW,
    Architecture,
    Evaluation,
    FinalOf,
    Fresh,
    Horizon,
    Opd,
    Recipe,
    Rlvr,
    Rollout,
    Sft,
    Task,
)
from pipelines.runs.cluster import cluster
from pipelines.runs.training import train
from pipelines.store.objects import Store

ARCHITECTURE = Architecture(
    vocab_size=32,
    hidden_size=32,
    num_hidden_layers=1,
    intermediate_size=48,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
)
PARENT = FinalOf(recipe="mini.pre", seed=0)
ARMS: dict[str, dict[str, Any]] = {
    "pre": {"start": Fresh(architecture=ARCHITECTURE), "objective": Sft(stream="noisy")},
    "teacher": {"start": PARENT, "objective": Sft(stream="clean")},
    "opd": {"start": PARENT, "objective": Opd(teacher=FinalOf(recipe="mini.teacher", seed=0))},
    "rlvr": {"start": PARENT, "objective": Rlvr()},
}


def _arm(name: str, **changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "study": "mini",
        "arm": name,
        "task": Task(name="chains", options={"operations": 1}),
        "optimizer": AdamW(learning_rate=1e-3, weight_decay=0.1),
        "horizon": Horizon(steps=7, snapshots=(1, 3), resume_every=2),
        "rollout": Rollout(prompts=2, samples=2, max_new_tokens=6),
        "evaluation": Evaluation(problems=4, samples=2),
    }
    return Recipe(**(fields | ARMS[name] | changes))


def _contents(store: Store) -> dict[str, bytes]:
    root = Path(store.path(""))
    found = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    for name in found:
        if name.endswith("run.json"):
            found[name] = json.dumps(json.loads(found[name]) | {"provenance": None}).encode()
    return {name: data for name, data in found.items() if not name.startswith("lake/timing/")}


@pytest.fixture(scope="session")
def workers() -> Iterator[None]:
    """A private Ray session on two CPUs."""
    with cluster(2):
        yield


@pytest.fixture(scope="session")
def arm() -> Callable[..., Recipe]:
    """arm(name, **changes): pre (from scratch), then teacher, opd and rlvr from its end."""
    return _arm


@pytest.fixture(scope="session")
def contents() -> Callable[[Store], dict[str, bytes]]:
    """contents(store): every object a rerun must reproduce, so neither times nor provenance."""
    return _contents


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}/store")


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All four arms, trained serially. Read only."""
    store = Store(f"file://{tmp_path_factory.mktemp('grown')}")
    for name in ARMS:
        train(store, _arm(name), 0, serial=True)
    return store


@pytest.fixture
def seeded(grown: Store, store: Store) -> Callable[..., Store]:
    """seeded(*names): a store that holds these complete runs and nothing else."""

    def copy(*names: str) -> Store:
        for name in names:
            shutil.copytree(grown.path(f"runs/mini.{name}"), store.path(f"runs/mini.{name}"))
            for table in grown.list("lake"):
                partition = f"lake/{table}/recipe=mini.{name}"
                shutil.copytree(grown.path(partition), store.path(partition))
        return store

    return copy
