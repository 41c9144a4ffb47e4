"""Main memory of a run's processes, in bytes, from its recipe and its model's configuration.

    trainer   PROCESS. Without a GPU also the larger of: its largest phase (`budget.actors`) and WAITING snapshots of
              4 P that wait to be written; or its constant parts and a serialized resume state (12 P, more with a
              constraint). With a GPU only the resume state
    workers   with several, rank 0 gathers one snapshot and one resume state more; the others take PROCESS, without a
              GPU `budget.actors`, and at the start the whole served weights
    others    PROCESS. Without a GPU `budget.actors`, with one the weights in transit, 4 P

P are the model's weights. Good to a factor of two, with prompts of PROMPT tokens. Ray reserves this memory
(`placement`), so that a node starts no more processes than fit; it does not limit them.

Not counted: Ray's object store, page cache, verifiers, tokenizers. A model without a known configuration counts 0.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd_ops.recipe import FinalOf, Fresh, Recipe, SnapshotOf, Start
from pipelines.runs.resources.budget import actors, resume
from pipelines.runs.resources.gpu_plan import Actor
from pipelines.runs.resources.sizes import Sizes, count_sizes
from pipelines.store.objects import Store
from pipelines.store.trajectory import Trajectory

PROCESS = 500 * 2**20  # bytes of an actor that has imported torch and transformers
PROMPT = 96  # tokens of a prompt
WAITING = 2  # snapshots that wait to be written, as in pipelines.store.writer


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of main memory that one process of each kind takes at most; 0 reserves none."""

    trainer: int = 0
    worker: int = 0  # of the trainer's, past the first
    rollout: int = 0
    teacher: int = 0

    def times(self, factor: int) -> "Memory":
        return Memory(**{name: factor * size for name, size in vars(self).items()})


def memory(store: Store, recipe: Recipe, seed: int) -> Memory:
    """The memory of a run's processes; 0 where a configuration is not known yet."""
    objective, student, teacher = recipe.objective, _model_sizes(store, recipe.start, seed), None
    if objective.needs_teacher:
        teacher = _model_sizes(store, objective.teacher, seed) if objective.teacher else student
    if student is None or (objective.needs_teacher and teacher is None):
        return Memory()
    by_name = {actor.name: actor for actor in actors(recipe, student, teacher, PROMPT)}
    parallel, width = "worker" in by_name, 2 if recipe.precision.compute == "bf16" else 4
    return Memory(
        trainer=_trainer_memory(by_name["trainer"], student.parameters, resume(recipe, student), gathered=parallel),
        worker=_worker_memory(by_name["worker"], width * student.parameters) if parallel else 0,
        rollout=_actor_memory(by_name.get("rollout"), student.parameters),
        teacher=_actor_memory(by_name.get("teacher"), teacher.parameters if teacher else 0),
    )


def evaluation(store: Store, recipe: Recipe, seed: int, responses: int) -> int:
    """Bytes of a process that draws so many responses of a finished run: its weights, its model and its KV cache."""
    student = _model_sizes(store, FinalOf(recipe=recipe.name), seed)
    if student is None:
        return 0
    width = 2 if recipe.precision.compute == "bf16" else 4
    cache = min(recipe.evaluation.batch, responses) * (PROMPT + recipe.rollout.max_new_tokens) * student.cache(width)
    return PROCESS + (4 + width) * student.parameters + cache


def _trainer_memory(actor: Actor, weights: int, state: int, *, gathered: bool) -> int:
    snapshots, state = 4 * (WAITING + gathered) * weights, (1 + gathered) * state
    if actor.workers.gpus:
        return PROCESS + state
    return PROCESS + max(actor.peak + snapshots, actor.always + state)


def _worker_memory(actor: Actor, served: int) -> int:
    if actor.workers.gpus:
        return PROCESS + served
    return PROCESS + max(actor.peak, actor.always + served)


def _actor_memory(actor: Actor | None, weights: int) -> int:
    if actor is None:
        return 0
    return PROCESS + (4 * weights if actor.workers.gpus else actor.peak)


def _model_sizes(store: Store, start: Start, seed: int) -> Sizes | None:
    config = _configuration(store, start, seed)
    return None if config is None else count_sizes(config)


def _configuration(store: Store, start: Start, seed: int) -> Mapping[str, Any] | None:
    """A model's configuration as plain JSON; None where it does not exist."""
    if isinstance(start, Fresh):
        return vars(start.architecture)
    if isinstance(start, FinalOf | SnapshotOf):
        trajectory = Trajectory(store, start.recipe, seed if start.seed is None else start.seed)
        return trajectory.run()["model"] if trajectory.is_registered() else None
    if start.ref.startswith("models/"):
        key = f"{start.ref}/config.json"
        return json.loads(store.read(key)) if store.exists(key) else None
    file = Path(start.ref).expanduser() / "config.json"
    return json.loads(file.read_text()) if file.exists() else None
