"""Where a run's processes stand: one Ray placement group for the trainer, its rollout actors and its teacher actors.

All of them are reserved at once or not at all, so that no run waits for its teacher while it holds the trainer's GPU. A
recipe without actors needs no group: everything is in the trainer's process.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opd_ops.recipe import Resources, Workers

CPU = 0.01  # of every bundle: a place on a node that has CPUs; what is computed there is not rationed
WAIT = 600.0  # seconds for what other work holds
BEAT = 1.0  # seconds between two chances to stop
REMEDY = "lower Resources.gpus or join a bigger cluster with RAY_ADDRESS"


@dataclass(frozen=True)
class Spot:
    """Room for one actor: a bundle of a placement group, or, without a group, wherever Ray finds it."""

    gpus: float = 0.0
    group: Any = None
    bundle: int = 0

    def options(self) -> dict[str, Any]:
        """Arguments of `ray.remote` that start an actor here. Without group and GPUs it holds no CPU while it lives."""
        if self.group is None:
            return {"num_gpus": self.gpus} if self.gpus else {}
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        strategy = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=self.bundle)
        return {"num_cpus": CPU, "num_gpus": self.gpus, "scheduling_strategy": strategy}


@dataclass(frozen=True)
class Placement:
    """Room for a run, which can be pickled. Without spots of a kind, that work is done in the trainer's process."""

    trainer: Spot
    rollout: tuple[Spot, ...] = ()
    teacher: tuple[Spot, ...] = ()


@contextmanager
def placed(resources: Resources, *, wait: float = WAIT, beat: Callable[[], None] = lambda: None) -> Iterator[Placement]:
    """Room for a run while the block lasts; its actors end with the block.

    beat is called every second while other work holds what is needed, and may stop the wait by raising. Errors:
    ValueError naming what the cluster does not have; TimeoutError naming what was not free within `wait` seconds.
    """
    require(resources)
    if not resources.rollout.actors and not resources.teacher.actors:
        yield Placement(Spot(resources.gpus))
        return
    from ray.util.placement_group import placement_group, remove_placement_group

    bundles = [{"CPU": CPU} | ({"GPU": gpus} if gpus else {}) for gpus in _bundles(resources)]
    group = placement_group(bundles, strategy="PACK")
    try:
        limit = time.monotonic() + wait
        while not group.wait(min(BEAT, wait)):
            if time.monotonic() >= limit:
                raise TimeoutError(_taken(resources, wait))
            beat()
        spots = [Spot(gpus, group, bundle) for bundle, gpus in enumerate(_bundles(resources))]
        first = 1 + resources.rollout.actors
        yield Placement(spots[0], tuple(spots[1:first]), tuple(spots[first:]))
    finally:
        remove_placement_group(group)


def require(resources: Resources) -> None:
    """Errors: ValueError for resources that no cluster could give, or that are more than this one has, free or not."""
    for what, gpus in _kinds(resources):
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise ValueError(f"{what} asks for {gpus:g} GPUs: a fraction is of one GPU, and above 1 they are whole")
    for what, workers in (("rollout", resources.rollout), ("teacher", resources.teacher)):
        if workers.actors < 0:
            raise ValueError(f"Resources.{what}.actors is not negative, got {workers.actors}")
    gpus = _bundles(resources)
    if sum(gpus) == 0 and len(gpus) == 1:
        return
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for name, unit, needed in (("GPU", "GPUs", gpus), ("CPU", "CPUs", [CPU] * len(gpus))):
        has = [float(node.get(name, 0)) for node in nodes]
        if sum(needed) > sum(has):
            wanted = _needs(resources) if name == "GPU" else f"{sum(needed):g} CPUs ({len(needed)} x {CPU})"
            raise ValueError(f"the run needs {wanted} and the cluster has {sum(has):g} {unit}; {REMEDY}")
        if max(needed) > max(has, default=0.0):
            raise ValueError(
                f"one process of the run needs {max(needed):g} {unit} ({_needs(resources)}) and the largest node has "
                f"{max(has):g}; {REMEDY}"
            )


def _kinds(resources: Resources) -> list[tuple[str, float]]:
    """(name, GPUs of each) of the kinds of processes that a recipe asks for."""
    workers = (("rollout", resources.rollout), ("teacher", resources.teacher))
    return [("trainer", resources.gpus), *((name, w.gpus) for name, w in workers if w.actors)]


def _bundles(resources: Resources) -> list[float]:
    """GPUs of the trainer, then of each rollout actor, then of each teacher actor."""

    def each(workers: Workers) -> list[float]:
        return [workers.gpus] * workers.actors

    return [resources.gpus, *each(resources.rollout), *each(resources.teacher)]


def _needs(resources: Resources) -> str:
    parts = [f"trainer {resources.gpus:g}"]
    for name, workers in (("rollout", resources.rollout), ("teacher", resources.teacher)):
        if workers.actors:
            parts.append(f"{name} {workers.actors} x {workers.gpus:g}")
    return f"{sum(_bundles(resources)):g} GPUs ({', '.join(parts)})"


def _taken(resources: Resources, wait: float) -> str:
    import ray

    free: Mapping[str, float] = ray.available_resources()
    total: Mapping[str, float] = ray.cluster_resources()
    held = ", ".join(f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s free" for name in ("GPU", "CPU"))
    return (
        f"the run needs {_needs(resources)} and {len(_bundles(resources))} x {CPU} CPUs, which were not free together "
        f"within {wait:g} s ({held}); wait for the other work to end, or {REMEDY}"
    )
