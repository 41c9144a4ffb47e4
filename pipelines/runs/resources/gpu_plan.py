"""The plan of a run on GPUs: memory by actor and phase, seconds by phase, stored bytes. `budget` makes it."""

import math
from dataclasses import dataclass
from typing import Literal

from opd_ops.recipe import Recipe, Workers
from pipelines.runs.resources.sizes import Sizes

ROOM = 0.9  # of a GPU's memory that tensors can fill
GIB = 2**30

Phase = Literal["always", "backward", "update", "confining", "sampling", "scoring"]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """memory: bytes that the driver reports; flops: dense bf16 operations a second; bandwidth: bytes a second."""

    name: str
    memory: float
    flops: float
    bandwidth: float


GPUS = {
    "h100": Gpu(name="H100 80 GB", memory=79 * GIB, flops=990e12, bandwidth=3.35e12),
    "h200": Gpu(name="H200 141 GB", memory=139 * GIB, flops=990e12, bandwidth=4.8e12),
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Bytes of one kind, and when they are allocated: `always`, or in one phase of a step."""

    name: str
    bytes: int
    phase: Phase = "always"


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A kind of actor: how many, the GPUs that the recipe declares for each, and the memory of each."""

    name: str
    workers: Workers
    parts: tuple[Part, ...]

    @property
    def always(self) -> int:
        """Bytes of one actor outside any phase."""
        return sum(part.bytes for part in self.parts if part.phase == "always")

    @property
    def peak(self) -> int:
        """Bytes of one actor in its largest phase."""
        phases = {part.phase: 0 for part in self.parts if part.phase != "always"}
        for phase in phases:
            phases[phase] = sum(part.bytes for part in self.parts if part.phase == phase)
        return self.always + max(phases.values(), default=0)

    def gpus(self, gpu: Gpu) -> int:
        """GPUs of a class that hold one actor, where its tensors can be split over them."""
        return math.ceil(self.peak / (ROOM * gpu.memory))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of one run. seconds: of a step, by phase. snapshots, resume: bytes, without compression."""

    recipe: Recipe
    gpu: Gpu
    student: Sizes
    teacher: Sizes | None
    rows: int  # of a micro-batch
    length: int  # tokens of its longest sequence
    actors: tuple[Actor, ...]
    activations: tuple[int, int]  # bytes with and without recomputation
    seconds: dict[str, float]
    snapshots: int
    resume: int

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return sum(self.seconds.values())

    @property
    def total(self) -> float:
        """Seconds of the run, at its step limit."""
        return self.step * self.recipe.horizon.steps

    @property
    def declared(self) -> float:
        """GPUs that the recipe declares."""
        return sum(actor.workers.actors * actor.workers.gpus for actor in self.actors)

    @property
    def needed(self) -> int:
        """GPUs of this class that it needs."""
        return sum(actor.workers.actors * actor.gpus(self.gpu) for actor in self.actors)
