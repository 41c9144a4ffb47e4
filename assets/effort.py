"""Wall and CPU seconds of a step, of the work in it, and the Ray resources that it used."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from assets import metadata
from assets.resources import ClusterResource
from opd_ops.recipe import Recipe, Resources, Workers
from pipelines.lake import read_partition
from pipelines.store.objects import Store

MEASURING = ("measure", "base")
BESIDE = (*MEASURING, "dagster")  # phases of the table `timing` that are no part of training
MATRICES = "one task of 1 CPU a matrix, the most expensive first"
RUNS = "one task of 1 CPU a run"


@dataclass
class Effort:
    """Created at the start of a step. `ray` describes the step's Ray, and `workers` its processes."""

    ray: str = ""
    workers: str = ""
    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    @contextmanager
    def session(self, cluster: ClusterResource, workers: str, *, needed: bool = True) -> Iterator[None]:
        """A Ray session for the block if there is work to do; its resources are recorded."""
        with cluster.session(needed=needed) as self.ray:
            self.workers = workers if needed and not cluster.serial else ""
            yield

    def facts(self) -> dict[str, Any]:
        """Seconds of this process since the step began, and its Ray resources."""
        found: dict[str, Any] = {
            "step_wall_s": round(time.perf_counter() - self.wall, 3),
            "step_cpu_s": round(time.process_time() - self.cpu, 3),
        }
        return found | {name: words for name, words in (("ray", self.ray), ("ray_workers", self.workers)) if words}

    def alone(self) -> dict[str, Any]:
        """Metadata of a step that works in its own process only: wall_s and cpu_s are those of the step."""
        return {name.removeprefix("step_"): value for name, value in self.facts().items()}


def describe_trainer(recipe: Recipe) -> str:
    """The processes of a run in training."""
    where: Resources = recipe.resources

    def describe(name: str, workers: Workers) -> str:
        if not workers.actors:
            return f"{name} in the trainer"
        return f"{name} {workers.actors} actors of {workers.gpus:g} GPUs"

    actors = f"{where.workers} actor{'s' * (where.workers > 1)}"
    first = f"trainer {actors} of {where.gpus:g} GPUs on {where.threads} thread{'s' * (where.threads > 1)}"
    return "; ".join((first, describe("rollouts", where.rollout), describe("teacher", where.teacher)))


def read_seconds(
    store: Store, recipe: str, seed: int, *, phases: Collection[str] = (), without: Collection[str] = ()
) -> dict:
    """Wall and CPU seconds of a run's phases, with those of its workers, from the table `timing`.

    phases: the phases to add up; if empty, all but `without`. The wall seconds of `base` are part of those of
    `measure`.
    """
    rows = read_partition(store, "timing", recipe=recipe, seed=seed)
    phase_rows = [] if rows is None else rows.select("phase", "wall_s", "cpu_s").to_dicts()
    phase_rows = [row for row in phase_rows if (row["phase"] in phases if phases else row["phase"] not in without)]
    if not phase_rows:
        return {}
    return {
        "wall_s": round(sum(row["wall_s"] for row in phase_rows if row["phase"] != "base"), 3),
        "cpu_s": round(sum(row["cpu_s"] for row in phase_rows), 3),
        "phases": metadata.small_table(phase_rows),
    }
