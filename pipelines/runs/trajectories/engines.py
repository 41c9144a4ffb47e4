"""A rollout engine made of Ray actors.

Weights go into Ray's object store once; every actor loads them from there and returns their digest. Whole sampling
calls are spread over the actors, so the samples depend neither on their number nor on restarts.
"""

import hashlib
import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from opd_ops.models import assemble, configuration_from
from opd_ops.recipe import Recipe
from opd_ops.rollout.rollout import Engine, Request, Sampled, Sampling, Synced, Tokens
from pipelines.runs.cluster.worker_failures import RETRIES
from pipelines.runs.resources.placement import Placement, Spot
from pipelines.runs.trajectories.actor_pool import ActorPool

Wire = dict[str, np.ndarray]  # by name, sorted; bf16 travels as its bits, uint16


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """The engine of an actor. config: the model's, as plain JSON. compute: of `Precision`.

    options: further arguments of the vLLM engine.
    """

    config: dict[str, Any]
    kind: Literal["hf", "vllm"] = "hf"
    compute: Literal["fp32", "autocast", "bf16"] = "fp32"
    threads: int = 1
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The answer of an actor that has started. synced: of the weights it started with."""

    name: str
    release: str
    pid: int
    synced: Synced | None


class EngineActor:
    """The Ray actor of an engine. The model is built from the first weights that are pushed."""

    def begin(self, spec: EngineSpec, device: str, weights: Wire | None, version: int) -> Standing:
        torch.set_num_threads(spec.threads)
        self.spec, self.device = spec, device
        self.engine: Engine | None = None
        synced = None if weights is None else self.sync(weights, version)
        kind = _engine(spec.kind)
        return Standing(name=kind.name, release=kind.release, pid=os.getpid(), synced=synced)

    def pid(self) -> int:
        return os.getpid()

    def sync(self, weights: Wire, version: int) -> Synced:
        tensors = _tensors(weights)
        if self.engine is None:
            self.engine = self._build(tensors)
        return self.engine.sync(tensors, version)

    def generate(self, requests: Sequence[Request], sampling: Sampling, version: int) -> list[Sampled]:
        return self._pushed().generate(requests, sampling, version=version)

    def score(self, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> list[list[float]]:
        return self._pushed().score(prompts, responses)

    def sleep(self) -> int:
        """The version that the engine still serves."""
        if self.engine is None:
            return -1
        self.engine.sleep()
        return self.engine.version

    def wake(self) -> None:
        if self.engine is not None:
            self.engine.wake()

    def _build(self, weights: dict[str, Tensor]) -> Engine:
        config, kind = configuration_from(self.spec.config), _engine(self.spec.kind)
        if self.spec.kind == "vllm":
            return kind(config, compute=self.spec.compute, **self.spec.options)
        dtype = torch.bfloat16 if self.spec.compute == "bf16" else torch.float32
        model: Any = assemble(config, weights, dtype, rounded=False)
        return kind(model.to(self.device), shared=False)

    def _pushed(self) -> Engine:
        if self.engine is None:
            raise ValueError("no weights have been pushed into this engine")
        return self.engine


class RemoteEngine:
    """An `Engine` of one actor per spot. An actor that dies is restarted with the weights, and repeats its calls.

    Errors: ValueError of an actor's engine, and when an actor does not serve what was sent; WorkerFailed, in one line,
    when an actor dies again and again.
    """

    def __init__(self, spec: EngineSpec, spots: Sequence[Spot], *, retries: int = RETRIES) -> None:
        self.spec, self.device = spec, "cuda" if spots[0].gpus else "cpu"
        self.name, self.release = spec.kind, ""  # as the actors say, from the first push on
        self._version, self._weights, self._digest = -1, None, ""
        self.pids: list[int] = []  # of every actor that has started
        self.pool = ActorPool("rollout actor", EngineActor, spots, self._begin, self._begun, retries=retries)

    @property
    def version(self) -> int:
        return self._version

    def sync(self, weights: Mapping[str, Tensor], version: int) -> Synced:
        """Errors: ValueError when an actor serves other weights than were sent."""
        import ray

        wire = _wire(weights)
        self._version, self._weights, self._digest = -1, None, _digest(wire)  # the old ones leave the object store
        reference = ray.put(wire)
        answers = self.pool.call_each("sync", reference, version)
        for synced in answers:
            self._require(synced)
        self._version, self._weights = version, reference
        return answers[0]

    def generate(self, requests: Sequence[Request], sampling: Sampling, *, version: int) -> list[Sampled]:
        """The responses of an engine in this process with the same weights, bit for bit."""
        if version != self.version or version < 0:
            raise ValueError(
                f"weights of version {version} were asked for, and the rollout actors hold version {self.version}"
            )
        calls = [requests[begin : begin + sampling.batch] for begin in range(0, len(requests), sampling.batch)]
        return list(chain.from_iterable(self.pool.map("generate", [(call, sampling, version) for call in calls])))

    def score(self, prompts: Sequence[Tokens], responses: Sequence[Tokens]) -> list[list[float]]:
        """By the first actor; the digests prove that the others serve the same weights."""
        return self.pool.call_first("score", prompts, responses)

    def sleep(self) -> None:
        """Free the actors' memory, and the object store's copy where they drop their weights."""
        self._version = min(self.pool.call_each("sleep"))
        if self._version < 0:
            self._weights = None

    def wake(self) -> None:
        self.pool.call_each("wake")

    def close(self) -> None:
        """End the actors."""
        self.pool.close()

    def _begin(self, handle: Any) -> Any:
        return handle.begin.remote(self.spec, self.device, self._weights, self._version)

    def _begun(self, standing: Standing) -> None:
        self.name, self.release = standing.name, standing.release
        self.pids.append(standing.pid)
        if standing.synced is not None:
            self._require(standing.synced)

    def _require(self, synced: Synced) -> None:
        if synced.digest != self._digest:
            raise ValueError(
                f"a rollout actor serves other weights ({synced.digest[:12]}) of version {synced.version} than were "
                f"sent ({self._digest[:12]}); its engine is not to be trusted"
            )


def build_engine(recipe: Recipe, config: dict[str, Any], placement: Placement) -> Engine | None:
    """The engine that draws a run's responses; None where that is the trainer's own model."""
    kind, compute = recipe.rollout.engine, recipe.precision.compute
    if placement.rollout:
        spec = EngineSpec(config=config, kind=kind, compute=compute, threads=recipe.resources.threads)
        return RemoteEngine(spec, placement.rollout)
    if kind == "vllm":
        return _engine(kind)(configuration_from(config), compute=compute)
    return None


def _engine(kind: str) -> Any:
    """The class of an engine; vLLM is imported nowhere else."""
    name = {"hf": "HfEngine", "vllm": "VllmEngine"}[kind]
    return getattr(importlib.import_module(f"opd_ops.rollout.{kind}"), name)


def _wire(weights: Mapping[str, Tensor]) -> Wire:
    """The weights as numpy; a tensor that bf16 represents exactly is sent as bf16."""
    wire = {}
    for name in sorted(weights):
        w = weights[name].detach()
        short = w.to(torch.bfloat16)
        w = short if torch.equal(short.to(w.dtype), w) else w
        w = w.contiguous().cpu()
        wire[name] = (w.view(torch.uint16) if w.dtype == torch.bfloat16 else w).numpy()
    return wire


def _tensors(wire: Wire) -> dict[str, Tensor]:
    """Tensors on the arrays of `_wire`, read-only as Ray's memory is."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # torch warns of arrays it must not write to
        tensors = {name: torch.from_numpy(array) for name, array in wire.items()}
    return {name: w.view(torch.bfloat16) if w.dtype == torch.uint16 else w for name, w in tensors.items()}


def _digest(wire: Wire) -> str:
    """As `Synced.digest`, of what is sent."""
    total = hashlib.sha256()
    for w in _tensors(wire).values():
        total.update(w.to(torch.bfloat16).contiguous().view(torch.uint16).numpy().data)
    return total.hexdigest()
