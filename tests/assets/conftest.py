"""Stores that hold runs of the real studies with miniature weights, as training and measuring would leave them."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch

from assets import backfill, offers
from assets.definitions import defs
from assets.partitions import STUDIES, run_key
from assets.plan import Item, plan
from opd_ops.recipe import Recipe
from pipelines import lake
from pipelines.runs.geometry.measuring import measure_run
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory
from pipelines.studies.study import Study
from tests import processes
from tests.pipelines.planted import plant_study

STEPS = (0, 2, 4)


def _weights(seed: int, step: int) -> dict[str, torch.Tensor]:
    """One projection and one norm."""
    generator = torch.Generator().manual_seed(seed)
    start, drift = (torch.randn(24, 20, generator=generator) for _ in range(2))
    return {
        "model.layers.0.self_attn.q_proj.weight": start + 0.01 * step * drift,
        "model.norm.weight": torch.ones(20) + 0.01 * step,
    }


def _settle(
    store: Store,
    recipe: Recipe,
    seed: int = 0,
    accuracy: tuple[float, float] = (0.3, 0.9),
    drawn: int | None = None,
) -> Trajectory:
    trajectory = Trajectory(store, recipe.name, seed)
    identity, fingerprint = recipe.identity(), recipe.fingerprint()
    trajectory.register({"identity": identity, "fingerprint": fingerprint, "inputs": {}, "model": {}, "provenance": {}})
    for step in STEPS:
        trajectory.commit(step, _weights(seed if drawn is None else drawn, step), None)
    rows = [
        {"step": step, "temperature": t, "accuracy": mean, "stderr": 0.02, "n": 400, "problems": 100, "samples": 4}
        for step, mean in zip((STEPS[0], STEPS[-1]), accuracy, strict=True)
        for t in (0.0, 1.0)
    ]
    keys = {"study": recipe.study, "recipe": recipe.name, "seed": seed}
    where = {"recipe": recipe.name, "seed": seed}
    lake.write(store, "evaluation", [keys | row for row in rows], **where)
    lake.write(store, "training", [keys | {"step": step, "loss": 1 / step} for step in range(1, 5)], **where)
    digest = trajectory.digest(STEPS[-1])
    trajectory.finish({"step": STEPS[-1], "digest": digest, "snapshots": list(STEPS), "evaluation": rows[2:]})
    return trajectory


def everything(store: Store, study: Study = STUDIES["tiny"]) -> list[Item]:
    """The plan of a study's suite core over a store."""
    return plan(store, study, list(study.arms()), list(study.seeds))


def named(items: list[Item]) -> dict[str, Item]:
    return {item.name: item for item in items}


@pytest.fixture(scope="session")
def settle() -> Callable[..., Trajectory]:
    """settle(store, recipe, seed, accuracy=(start, end), drawn=): a complete run of a real recipe, not measured.

    drawn: another seed of its weights.
    """
    return _settle


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of the test's own, at OPD_STORE."""
    made = Store(f"file://{tmp_path}/store")
    monkeypatch.setenv("OPD_STORE", made.uri)
    return made


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store, study = Store(f"file://{tmp_path_factory.mktemp('finished')}"), STUDIES["tiny"]
    for model in study.models:
        _settle(store, model)
    for recipe in study.arms("core"):
        for seed in study.seeds:
            _settle(store, recipe, seed)
            measure_run(store, recipe, seed, study.measurement, serial=True)
    return store


@pytest.fixture
def whole(_finished: Store, store: Store) -> Store:
    """A store with every run of the tiny study's suite core complete and measured, and nothing compared."""
    shutil.copytree(_finished.path(""), store.path(""))
    return store


@pytest.fixture
def plant(store: Store) -> Callable[..., None]:
    """plant(more=, **changes): tables of three seeds per arm in the store's lake, and no runs."""

    def make(more: tuple[str, ...] = (), **changes: dict[str, Any]) -> None:
        for table, rows in plant_study("tiny", more=more, **changes).items():
            if table not in ("verdicts", "bench"):
                for (recipe, seed), part in rows.collect().partition_by("recipe", "seed", as_dict=True).items():
                    lake.write(store, table, part, recipe=recipe, seed=seed)

    return make


def offer_all(instance: dg.DagsterInstance) -> None:
    """Every run of every study, as if all suites had been asked for."""
    for study in STUDIES.values():
        runs = [run_key(recipe.name, 0) for recipe in study.helpers]
        offers.offer(instance, offers.of_runs(study, study.every_arm(), study.seeds))
        offers.offer(instance, {"runs": runs})


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """One in memory, to which every run of every study is a partition."""
    with dg.DagsterInstance.ephemeral() as made:
        offer_all(made)
        yield made


@pytest.fixture
def execute(store: Store, instance: dg.DagsterInstance) -> Callable[..., dg.ExecuteInProcessResult]:
    """execute(job, partition, *assets, config=): a Dagster run over `store` without Ray, of some assets or all."""

    def run(job: str, partition: str, *assets: str, config: dict[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        return defs.resolve_job_def(job).execute_in_process(
            instance=instance,
            partition_key=partition,
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
            raise_on_error=False,
            run_config=(config or {})
            | {
                "resources": {"cluster": {"config": {"serial": True}}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
        )

    return run


def checks(result):
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def shown(result):
    """Metadata of what was materialized, by asset."""
    events = result.get_asset_materialization_events()
    return {event.asset_key.to_user_string(): event.materialization.metadata for event in events}


@pytest.fixture(scope="session")
def webserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a webserver of ours, as a process of its own, without a code location. OPD_HOSTS: ui.example."""
    home = tmp_path_factory.mktemp("webserver")
    (home / "dagster.yaml").write_text(files("assets").joinpath("dagster.yaml").read_text())
    (port,) = processes.free_ports(1)
    command = [sys.executable, "-m", "assets.webserver", "--empty-workspace", "-h", "127.0.0.1", "-p", str(port)]
    environment = os.environ | {"DAGSTER_HOME": str(home), "OPD_HOSTS": "ui.example"}
    process = processes.start(command, home / "log", environment)
    try:
        limit = time.monotonic() + 120
        while not processes.answers(port):
            assert process.poll() is None and time.monotonic() < limit, (home / "log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        processes.stop([process])


SET_LIMIT = 'mutation {setConcurrencyLimit(concurrencyKey: "%s", limit: 7)}'


@pytest.fixture
def limits(webserver: str) -> Callable[[], dict[str, int]]:
    """limits(): the concurrency limits of the webserver's instance, which `SET_LIMIT` changes."""
    query = "{instance {concurrencyLimits {concurrencyKey slotCount}}}"

    def read() -> dict[str, int]:
        instance = backfill.post(webserver, query, {})["instance"]
        return {limit["concurrencyKey"]: limit["slotCount"] for limit in instance["concurrencyLimits"]}

    return read
