"""The placement group of a run: the trainer's ranks, its rollout actors and its teacher actors.

Ray reserves all of them at once or none, so that no run waits for its teacher while it holds the trainer's GPU. A
recipe without actors runs in the trainer's process. On a cluster of one node its group reserves only the trainer's
memory, so that the trainer may be an actor started earlier.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opd_ops.recipe import Resources, Workers
from pipelines.runs.cluster import free_memory
from pipelines.runs.cluster.free_memory import format_gb, list_node_resources
from pipelines.runs.cluster.worker_failures import warn
from pipelines.runs.resources.memory import Memory

CPU = 0.01  # of every bundle: needs a node that has CPUs, without rationing them
WAIT = 600.0  # seconds for GPUs that other work holds; for memory there is no limit
QUIET = 10.0  # seconds before a wait for memory is reported
BEAT = 1.0  # seconds between two chances to stop
REMEDY = "lower Resources.gpus or join a bigger cluster with RAY_ADDRESS"
SMALLER = (
    "set resources.checkpoint_activations, give the arm a new name with a smaller precision.micro_batch, or join a "
    "bigger cluster with RAY_ADDRESS"
)


@dataclass(frozen=True)
class Spot:
    """The place of one actor: a bundle of a placement group, or any node where there is no group.

    memory: bytes to reserve, for an actor with a GPU and no group. cpus: of its bundle.
    """

    gpus: float = 0.0
    group: Any = None
    bundle: int = 0
    memory: int = 0
    cpus: float = CPU

    def options(self) -> dict[str, Any]:
        """Arguments of `ray.remote` that start an actor here. Without group and GPUs it reserves no CPU."""
        if self.group is None:
            memory = {"memory": self.memory} if self.memory else {}
            return {"num_gpus": self.gpus} | memory if self.gpus else {}
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        strategy = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=self.bundle)
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "scheduling_strategy": strategy}


@dataclass(frozen=True)
class Placement:
    """The spots of a run, which can be pickled. Without spots of a kind, the trainer's process does that work.

    trainer: of rank 0. workers: of the trainer's other ranks.
    """

    trainer: Spot
    rollout: tuple[Spot, ...] = ()
    teacher: tuple[Spot, ...] = ()
    workers: tuple[Spot, ...] = ()


@contextmanager
def reserve(
    resources: Resources,
    memory: Memory | None = None,
    *,
    wait: float | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Iterator[Placement]:
    """A run's placement while the block lasts, with this memory for each process; its actors end with the block.

    beat: called every second while other work occupies the resources; it may stop the wait by raising. wait: seconds,
    by default WAIT for GPUs and no limit for the rest. Errors: ValueError naming what the cluster does not have;
    TimeoutError naming what was not free within `wait` seconds.
    """
    memory = memory or Memory()
    require(resources, memory)
    alone = not resources.rollout.actors and not resources.teacher.actors and resources.workers == 1
    if alone and (resources.gpus or not memory.trainer):
        yield Placement(Spot(resources.gpus, memory=memory.trainer))
        return
    from ray.util.placement_group import placement_group, remove_placement_group

    gpus, cpus, apart = _bundles(resources), _cpus(resources), alone and len(list_node_resources()) == 1
    bundles = [
        ({} if apart else {"CPU": cpu}) | ({"GPU": gpu} if gpu else {}) | ({"memory": size} if size else {})
        for gpu, cpu, size in zip(gpus, cpus, _memory(resources, memory), strict=True)
    ]
    group = placement_group(bundles, strategy="PACK")
    try:
        _await(group, resources, memory, (WAIT if sum(gpus) else math.inf) if wait is None else wait, beat)
        if apart:
            yield Placement(Spot())
            return
        spots = [Spot(gpu, group, bundle, cpus=cpu) for bundle, (gpu, cpu) in enumerate(zip(gpus, cpus, strict=True))]
        first = resources.workers
        second = first + resources.rollout.actors
        yield Placement(spots[0], tuple(spots[first:second]), tuple(spots[second:]), tuple(spots[1:first]))
    finally:
        remove_placement_group(group)


def _await(group: Any, resources: Resources, memory: Memory, wait: float, beat: Callable[[], None]) -> None:
    """Errors: TimeoutError naming what is occupied."""
    begun, announced = time.monotonic(), False
    while not group.wait(min(BEAT, wait)):
        waited = time.monotonic() - begun
        if waited >= wait:
            raise TimeoutError(_timeout_message(resources, memory, wait))
        if memory.trainer and not announced and waited >= QUIET:
            announced = True
            warn(
                f"a run waits for memory that other work holds: it needs {_memory_text(resources, memory)}; "
                f"{_free_text()}"
            )
        beat()


def require(resources: Resources, memory: Memory | None = None) -> None:
    """Errors: ValueError for resources that no cluster has, or that are more than this one has, free or occupied."""
    for what, gpus in _kinds(resources):
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise ValueError(f"{what} asks for {gpus:g} GPUs: a fraction is of one GPU, and above 1 they are whole")
    for what, workers in (("rollout", resources.rollout), ("teacher", resources.teacher)):
        if workers.actors < 0:
            raise ValueError(f"Resources.{what}.actors is not negative, got {workers.actors}")
    gpus, memory = _bundles(resources), memory or Memory()
    wanted_memory = _memory(resources, memory)
    if sum(gpus) + sum(wanted_memory) == 0 and len(gpus) == 1:
        return
    there = list_node_resources()
    remedy = REMEDY if resources.workers == 1 else REMEDY.replace("gpus", "workers")
    asked = [("GPU", "GPUs", gpus)] + ([("CPU", "CPUs", _cpus(resources))] if len(gpus) > 1 or sum(gpus) else [])
    for name, unit, needed in asked:
        has = [float(node.get(name, 0)) for node in there]
        if sum(needed) > sum(has):
            wanted = _gpus_text(resources) if name == "GPU" else f"{sum(needed):g} CPUs ({_multiples(needed)})"
            raise ValueError(f"the run needs {wanted} and the cluster has {sum(has):g} {unit}; {remedy}")
        if max(needed) > max(has, default=0.0):
            raise ValueError(
                f"one process of the run needs {max(needed):g} {unit} ({_gpus_text(resources)}) and the largest node "
                f"has {max(has):g}; {remedy}"
            )
    if not (has := free_memory.list_node_memory()):
        return
    if sum(wanted_memory) > sum(has):
        raise ValueError(
            f"the run needs {_memory_text(resources, memory)} and the cluster has {format_gb(sum(has))}; {SMALLER}"
        )
    if max(wanted_memory) > max(has):
        raise ValueError(
            f"one process of the run needs {format_gb(max(wanted_memory))} of memory "
            f"({_memory_text(resources, memory)}) and the largest node has {format_gb(max(has))}; {SMALLER}"
        )


def enlarge_memory(resources: Resources, memory: Memory, times: int) -> Memory:
    """`times` the memory for each process, or the largest multiple that the cluster has."""
    for factor in range(times, 1, -1):
        try:
            require(resources, memory.times(factor))
        except ValueError:
            continue
        return memory.times(factor)
    return memory


def _kinds(resources: Resources) -> list[tuple[str, float]]:
    """(name, GPUs of each) of the kinds of processes that a recipe asks for."""
    workers = (("rollout", resources.rollout), ("teacher", resources.teacher))
    return [("trainer", resources.gpus), *((name, w.gpus) for name, w in workers if w.actors)]


def _bundles(resources: Resources) -> list[float]:
    """GPUs of each of the trainer's workers, then of each rollout actor, then of each teacher actor."""

    def each(workers: Workers) -> list[float]:
        return [workers.gpus] * workers.actors

    return [resources.gpus] * resources.workers + [*each(resources.rollout), *each(resources.teacher)]


def _cpus(resources: Resources) -> list[float]:
    """CPUs of the processes in the order of `_bundles`: a whole one for each of several workers without a GPU."""
    several = resources.workers > 1 and not resources.gpus
    beside = resources.rollout.actors + resources.teacher.actors
    return [1.0 if several else CPU] * resources.workers + [CPU] * beside


def _multiples(needed: list[float]) -> str:
    return " + ".join(f"{needed.count(size)} x {size:g}" for size in dict.fromkeys(needed))


def _gpus_text(resources: Resources) -> str:
    factor = "" if resources.workers == 1 else f"{resources.workers} x "
    parts = [f"trainer {factor}{resources.gpus:g}"]
    for name, workers in (("rollout", resources.rollout), ("teacher", resources.teacher)):
        if workers.actors:
            parts.append(f"{name} {workers.actors} x {workers.gpus:g}")
    return f"{sum(_bundles(resources)):g} GPUs ({', '.join(parts)})"


def _memory(resources: Resources, memory: Memory) -> list[int]:
    """Bytes of the processes in the order of `_bundles`."""
    beside = [memory.rollout] * resources.rollout.actors + [memory.teacher] * resources.teacher.actors
    return [memory.trainer, *[memory.worker] * (resources.workers - 1), *beside]


def _memory_text(resources: Resources, memory: Memory) -> str:
    parts = [f"trainer {format_gb(memory.trainer)}"]
    for name, workers, size in (
        ("worker", Workers(actors=resources.workers - 1), memory.worker),
        ("rollout", resources.rollout, memory.rollout),
        ("teacher", resources.teacher, memory.teacher),
    ):
        if workers.actors:
            parts.append(f"{name} {workers.actors} x {format_gb(size)}")
    return f"{format_gb(sum(_memory(resources, memory)))} of memory ({', '.join(parts)})"


def _free_text() -> str:
    """The free share of the cluster's resources."""
    import ray

    free: Mapping[str, float] = ray.available_resources()
    total: Mapping[str, float] = ray.cluster_resources()
    free_of = [f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s free" for name in ("GPU", "CPU")]
    return ", ".join(
        [*free_of, f"{format_gb(free.get('memory', 0))} of {format_gb(total.get('memory', 0))} of memory free"]
    )


def _timeout_message(resources: Resources, memory: Memory, wait: float) -> str:
    sizes = f", {_memory_text(resources, memory)}" if memory.trainer else ""
    return (
        f"the run needs {_gpus_text(resources)}{sizes} and {_multiples(_cpus(resources))} CPUs, which were not free "
        f"together within {wait:g} s ({_free_text()}); wait for the other work to end, or {REMEDY}"
    )
