"""Accuracy of finished runs on other families of their task, after the fact: the table `transfer`.

The bf16 view of a run's first and last weights, as they would be served, answers held-out problems of every family of
its study. Problems and uniforms are the same for every run, as in `opd_ops.training.evaluating`. The responses are
drawn by the Hugging Face engine, whatever drew the run's own.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

from opd_ops.recipe import FinalOf, Recipe
from opd_ops.recipe.later import plain
from pipelines import lake
from pipelines.lake.lake import partition_key
from pipelines.runs.cluster.map_tasks import map_tasks
from pipelines.runs.geometry import records
from pipelines.runs.resources import memory
from pipelines.store import integrity
from pipelines.store.objects import Store
from pipelines.store.tensors import read
from pipelines.store.trajectory import Trajectory
from pipelines.studies.families import EVALUATION, Family, study_families

VERSION = 1  # of how a family is evaluated


@dataclass(frozen=True, kw_only=True)
class TransferTask:
    """One run to evaluate, as sent to a worker."""

    store: Store
    recipe: Recipe
    seed: int


@dataclass(frozen=True, kw_only=True)
class Served:
    """A run's model with bf16 weights, in the run's arithmetic. folder: of its tokenizer, if it has one."""

    model: Any
    step: int
    folder: str | None


def evaluate_transfers(
    store: Store,
    runs: Sequence[tuple[Recipe, int]],
    *,
    serial: bool = False,
    done: Callable[[int], None] = lambda count: None,
) -> None:
    """Evaluate complete runs, one Ray task per run, or serially; each result is saved when it is complete.

    done: called with the number of finished runs. Errors: as for `evaluate_transfer`.
    """
    work = [TransferTask(store=store, recipe=recipe, seed=seed) for recipe, seed in runs]
    responses = EVALUATION.problems * EVALUATION.samples
    map_tasks(
        _evaluate,
        work,
        serial=serial,
        done=done,
        memory=lambda task: memory.evaluation(task.store, task.recipe, task.seed, responses),
        name=lambda task: f"{task.recipe.name} seed {task.seed}",
    )


def evaluate_transfer(store: Store, recipe: Recipe, seed: int) -> list[dict[str, Any]]:
    """Rows of `transfer` of a complete run: computed and written, or read if they are of these weights and families.

    Errors: ValueError for an incomplete run, a study without families, and problems that do not fit the model.
    """
    trajectory = Trajectory(store, recipe.name, seed)
    made_from = expected_inputs(store, recipe, seed)
    if is_transferred(store, recipe, seed):
        stored = lake.read_partition(store, "transfer", recipe=recipe.name, seed=seed)
        assert stored is not None
        return stored.to_dicts()
    rows = []
    for step in map(int, made_from["snapshots"]):
        served = _serve_model(store, recipe, seed, step)
        for name, family in study_families(recipe.study).items():
            keys = {"study": recipe.study, "recipe": recipe.name, "seed": seed, "step": step, "family": name}
            rows += [keys | row for row in _accuracy(recipe, family, served)]
    key = f"{trajectory.prefix}/transfer.json"
    store.remove(key)  # stopped before the next one is written, it must not vouch for these rows
    lake.write(store, "transfer", rows, recipe=recipe.name, seed=seed)
    store.write(key, json.dumps({"from": made_from}, sort_keys=True).encode())
    return rows


def is_transferred(store: Store, recipe: Recipe, seed: int) -> bool:
    """Whether the run's rows exist for its weights, its study's families and this version."""
    trajectory = Trajectory(store, recipe.name, seed)
    key = f"{trajectory.prefix}/transfer.json"
    if trajectory.end() is None or not store.exists(key):
        return False
    if not store.exists(partition_key("transfer", recipe=recipe.name, seed=seed)):
        return False
    return records.parse_fields(store, key).get("from") == expected_inputs(store, recipe, seed)


def expected_inputs(store: Store, recipe: Recipe, seed: int) -> dict[str, Any]:
    """The inputs that rows would record now. Errors: ValueError without families, or for an incomplete run."""
    asked, trajectory = study_families(recipe.study), Trajectory(store, recipe.name, seed)
    end = trajectory.end()
    if end is None:
        raise ValueError(f"{trajectory.prefix} is not complete: train it before evaluating it")
    described = {
        "version": VERSION,
        "evaluation": asdict(EVALUATION),
        "families": {name: plain(family) for name, family in asked.items()},
        "snapshots": {str(step): trajectory.digest(step) for step in (0, end["step"])},
    }
    return json.loads(json.dumps(described))


def _evaluate(task: TransferTask) -> None:
    evaluate_transfer(task.store, task.recipe, task.seed)


def _serve_model(store: Store, recipe: Recipe, seed: int, step: int) -> Served:
    import torch

    from opd_ops.models import assemble, configuration_from
    from opd_ops.training.student import DTYPES
    from pipelines.runs.trajectories.starts import tokenizer_folder

    torch.set_num_threads(recipe.resources.threads)
    trajectory = Trajectory(store, recipe.name, seed)
    weights = read(integrity.verified_refs(trajectory, step))
    model: Any = assemble(configuration_from(trajectory.run()["model"]), weights, DTYPES[recipe.precision.compute])
    folder = tokenizer_folder(store, FinalOf(recipe=recipe.name, seed=seed), seed)
    return Served(model=model.to("cuda" if recipe.resources.gpus else "cpu"), step=step, folder=folder)


def _accuracy(recipe: Recipe, family: Family, served: Served) -> list[dict[str, Any]]:
    """Rows of one family, without the keys of the run."""
    from opd_ops.rollout.hf import HfEngine
    from opd_ops.tasks.fit import require_fit
    from opd_ops.tasks.guard import Guarded
    from opd_ops.tasks.registry import build
    from opd_ops.training.drawing import Drawing
    from opd_ops.training.evaluating import Evaluator
    from opd_ops.training.student import arithmetic

    asked = replace(
        recipe,
        task=family.task,
        rollout=replace(recipe.rollout, max_new_tokens=family.max_new_tokens),
        evaluation=replace(EVALUATION, batch=recipe.evaluation.batch),
    )
    window = getattr(served.model.config, "max_position_embeddings", 1 << 30)
    seconds, overtime = recipe.resources.verifier_seconds, family.task.overtime
    task = Guarded(build(family.task, served.folder), seconds, overtime)
    try:
        # Nothing is trained: the seed, the phases and what a replay would read are never asked for.
        drawing = Drawing(asked, 0, task, task.rewards, lambda name: nullcontext(), window, lambda step: [])
        evaluator = Evaluator(asked, task, drawing)
        require_fit(task, evaluator.problems, window, family.max_new_tokens)
        engine = HfEngine(served.model, shared=True)
        engine.sync({}, served.step)
        with arithmetic(recipe.precision.compute, served.model.device.type):
            return evaluator.rows(engine, None)
    finally:
        task.close()
