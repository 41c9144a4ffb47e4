"""What the processes of a run hold in main memory, in bytes, from its recipe and its model's configuration alone.

    trainer   PROCESS; without a GPU what `budget.actors` counts of it, and besides its largest phase WAITING snapshots
              that wait to be written, 4 P each, or besides what it always holds a resume state as bytes (12 P, and more
              of a constraint), where that is more; with a GPU the resume state alone
    workers   of several, the first gathers a snapshot and a resume state whole, so one more of each; the others
              PROCESS, what `budget.actors` counts without a GPU, and at the start the served weights whole
    others    PROCESS; without a GPU what `budget.actors` counts of them, with one the weights on their way, 4 P

P are the model's weights. Good to a factor of two, with prompts of PROMPT tokens. It is what Ray is asked for
(`placement`), so that no more is started on a node than fits; the memory itself is not limited by it.

Not counted: Ray's object store, page cache, verifiers, tokenizers, and the models of a configuration that cannot be
read without torch, for which nothing is asked.
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
    """Bytes of main memory that one process of each kind holds at most; 0 where none is asked for."""

    trainer: int = 0
    worker: int = 0  # of the trainer's, past the first
    rollout: int = 0
    teacher: int = 0

    def times(self, factor: int) -> "Memory":
        return Memory(**{name: factor * size for name, size in vars(self).items()})


def memory(store: Store, recipe: Recipe, seed: int) -> Memory:
    """What a run's processes will hold; nothing where a configuration is not known yet."""
    objective, student, teacher = recipe.objective, _sizes(store, recipe.start, seed), None
    if objective.needs_teacher:
        teacher = _sizes(store, objective.teacher, seed) if objective.teacher else student
    if student is None or (objective.needs_teacher and teacher is None):
        return Memory()
    by_name = {actor.name: actor for actor in actors(recipe, student, teacher, PROMPT)}
    parallel, width = "worker" in by_name, 2 if recipe.precision.compute == "bf16" else 4
    return Memory(
        trainer=_trainer(by_name["trainer"], student.parameters, resume(recipe, student), gathered=parallel),
        worker=_worker(by_name["worker"], width * student.parameters) if parallel else 0,
        rollout=_beside(by_name.get("rollout"), student.parameters),
        teacher=_beside(by_name.get("teacher"), teacher.parameters if teacher else 0),
    )


def evaluation(store: Store, recipe: Recipe, seed: int, responses: int) -> int:
    """Bytes of a process that draws so many responses of a finished run: its weights, its model, keys and values."""
    student = _sizes(store, FinalOf(recipe=recipe.name), seed)
    if student is None:
        return 0
    width = 2 if recipe.precision.compute == "bf16" else 4
    cache = min(recipe.evaluation.batch, responses) * (PROMPT + recipe.rollout.max_new_tokens) * student.cache(width)
    return PROCESS + (4 + width) * student.parameters + cache


def _trainer(actor: Actor, weights: int, state: int, *, gathered: bool) -> int:
    snapshots, state = 4 * (WAITING + gathered) * weights, (1 + gathered) * state
    if actor.workers.gpus:
        return PROCESS + state
    return PROCESS + max(actor.peak + snapshots, actor.always + state)


def _worker(actor: Actor, served: int) -> int:
    if actor.workers.gpus:
        return PROCESS + served
    return PROCESS + max(actor.peak, actor.always + served)


def _beside(actor: Actor | None, weights: int) -> int:
    if actor is None:
        return 0
    return PROCESS + (4 * weights if actor.workers.gpus else actor.peak)


def _sizes(store: Store, start: Start, seed: int) -> Sizes | None:
    config = _configuration(store, start, seed)
    return None if config is None else count_sizes(config)


def _configuration(store: Store, start: Start, seed: int) -> Mapping[str, Any] | None:
    """A model's configuration as plain JSON, without its weights; None where it is not there."""
    if isinstance(start, Fresh):
        return vars(start.architecture)
    if isinstance(start, FinalOf | SnapshotOf):
        trajectory = Trajectory(store, start.recipe, seed if start.seed is None else start.seed)
        return trajectory.run()["model"] if trajectory.registered() else None
    if start.ref.startswith("models/"):
        key = f"{start.ref}/config.json"
        return json.loads(store.read(key)) if store.exists(key) else None
    file = Path(start.ref).expanduser() / "config.json"
    return json.loads(file.read_text()) if file.exists() else None
