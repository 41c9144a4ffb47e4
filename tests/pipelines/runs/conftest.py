"""Planted weights and what is saved of them; a miniature study that trains in a second; one Ray session for all."""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from opd_ops.recipe import Recipe
from pipelines import lake
from pipelines.runs.cluster.attach import cluster
from pipelines.runs.external.imports import measure_import, plan_import
from pipelines.runs.geometry import records
from pipelines.runs.trajectories.training import train
from pipelines.store.objects import Store
from pipelines.store.tensors import serialise
from pipelines.studies.study import TABLES, Measurement
from tests.pipelines.runs import mini

NULLS = ("shuffled", "fixed_direction")  # methods of Matrix
CUTS = Measurement(k=(4,), hill_k=(4,))
M, N, K = 48, 32, 4  # out, in, the cut
Folders = tuple[str, list[tuple[int, str]]]  # a base, and snapshots with their steps
Q, KEY, V, OUT = (f"model.layers.0.self_attn.{part}_proj" for part in "qkvo")
EMBED, NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}


def orthonormal(n, k, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64)).Q


U, RIGHT = orthonormal(M, N, 1), orthonormal(N, N, 2)
SPECTRUM = torch.linspace(2.0, 1.0, N, dtype=torch.float64)
W0 = (U * SPECTRUM) @ RIGHT.T


def turned(degrees):
    """The K-th left singular vector turned towards the next one."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    u = U.clone()
    u[:, K - 1], u[:, K] = c * U[:, K - 1] + s * U[:, K], c * U[:, K] - s * U[:, K - 1]
    return (u * SPECTRUM) @ RIGHT.T


def model(**changes):
    """Four projections, an embedding and a norm in fp64; changes by name without .weight."""
    generator = torch.Generator().manual_seed(3)
    tensors = {part: W0 for part in (Q, KEY, V, OUT)}
    tensors |= {EMBED: torch.randn(10, N, generator=generator).double(), NORM: torch.ones(N).double()}
    return {f"{name}.weight": w.clone() for name, w in (tensors | changes).items() if w is not None}


def drifted(step):
    generator = torch.Generator().manual_seed(step)
    return model(**{part: W0 + 0.01 * torch.randn(M, N, generator=generator).double() for part in (Q, KEY, V, OUT)})


def save(folder, tensors, config=TIED, shards=1, vocabulary=None):
    """A Hugging Face folder; returns its path."""
    folder.mkdir(parents=True)
    names = sorted(tensors)
    files = ["model.safetensors"] if shards == 1 else [f"model-{i}-of-{shards}.safetensors" for i in range(shards)]
    where = {name: files[i % shards] for i, name in enumerate(names)}
    for file in files:
        (folder / file).write_bytes(serialise({name: tensors[name] for name in names if where[name] == file}))
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if vocabulary is not None:
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return str(folder)


def run(store, base, snapshots, measurement=CUTS, name="x"):
    """plan, then measure in this process; returns the problems."""
    return measure_import(plan_import(store, base, snapshots, measurement, name), serial=True)


def rows(store, table, matrix=None, view="master", recipe="external.x"):
    frame = lake.scan(table, store.uri).filter(recipe=recipe, view=view)
    return (frame if matrix is None else frame.filter(matrix=matrix)).sort("step").collect().to_dicts()


def everything(store):
    """The rows of all measured tables."""
    return {table: lake.read_partition(store, table, recipe="external.x", seed=0) for table in TABLES}


def same(one, other):
    return all(one[table].equals(other[table]) for table in TABLES)


def record(store, recipe="external.x"):
    return json.loads(records.record_generations(store, recipe).read()[1])


def objects(store):
    root = Path(store.path(""))
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def refused(store, base, snapshots, *parts, measurement=CUTS, name="x", roles=None):
    """plan refuses in one line that holds all `parts`, and the store is as it was."""
    before = objects(store)
    with pytest.raises(ValueError) as caught:
        plan_import(store, base, snapshots, measurement, name, roles)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert objects(store) == before


def gone(method):
    """The actor of this bound method is dead, or dies within a minute: Ray kills in the background."""
    import ray.exceptions

    end = time.monotonic() + 60
    with pytest.raises(ray.exceptions.RayActorError):
        while time.monotonic() < end:
            ray.get(method.remote())
            time.sleep(0.05)


@pytest.fixture(scope="session")
def workers() -> Iterator[None]:
    """A private Ray session on two CPUs."""
    with cluster(2):
        yield


@pytest.fixture(scope="session")
def arm() -> Callable[..., Recipe]:
    """arm(name, **changes): pre (from scratch), then teacher, opd and rlvr from its end."""
    return mini.arm


@pytest.fixture(scope="session")
def contents() -> Callable[[Store], dict[str, bytes]]:
    """contents(store): every object a rerun must reproduce, so neither times nor provenance."""
    return mini.contents


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}/store")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """A base and snapshots 1 and 2, whose folder names are base, one and two."""
    return {
        "base": save(tmp_path / "base", model()),
        "one": save(tmp_path / "one", drifted(1)),
        "two": save(tmp_path / "two", drifted(2)),
    }


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(tables, step) of every snapshot and (null, step) of every null that is measured from now on, in this process."""
    from opd_ops.geometry.suite import Matrix

    seen: list[tuple[str, int]] = []
    snapshot = Matrix.snapshot
    methods = {"shuffled": "shuffled_null", "fixed_direction": "fixed_direction"}
    nulls = {name: getattr(Matrix, methods[name]) for name in NULLS}

    def measured(self: Matrix, step: int, weight: torch.Tensor) -> Any:
        seen.append((" ".join(self.settings.tables), step))
        return snapshot(self, step, weight)

    def compared(name: str, self: Matrix, step: int, *rest: Any) -> Any:
        seen.append((name, step))
        return nulls[name](self, step, *rest)

    monkeypatch.setattr(Matrix, "snapshot", measured)
    for name in NULLS:
        monkeypatch.setattr(Matrix, methods[name], lambda self, *rest, name=name: compared(name, self, *rest))
    return seen


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All four arms, trained serially. Read only."""
    store = Store(f"file://{tmp_path_factory.mktemp('grown')}")
    for name in mini.ARMS:
        train(store, mini.arm(name), 0, serial=True)
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
