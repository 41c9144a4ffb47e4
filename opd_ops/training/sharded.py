"""A student sharded over data parallel ranks by FSDP2: each holds rows of every weight, master, moment and gradient.

    served weight, master, moments, gradient of W [out, in]   rows of rank r of N: [ceil(out / N), in], the last short
    gradient                                                  the sum of the ranks' gradients, not their mean: the
                                                              weights of the loss hold the whole step's denominator
    norm                                                      sqrt(sum over ranks of ||g_r||^2), which clips all ranks

A rank holds whole weights of one block of layers at a time, in the forward and the backward pass. AdamW works element
by element, so a rank's step is what one process does to those rows. Weights and states are gathered whole on rank 0,
and are those of one process but for the order of fp32 sums over sequences.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PretrainedConfig

from opd_ops.recipe import Recipe
from opd_ops.training import student
from opd_ops.training.optimizer import MOMENTS, Masters, Moments
from opd_ops.training.ranks import Ranks


def build(recipe: Recipe, config: PretrainedConfig, weights: dict[str, Tensor] | None, ranks: Ranks) -> Any:
    """This rank's shard of the student. Errors: as `student.build`."""
    model = student.build(recipe, config, weights)
    # The weights of the embedding and the head, which may be one, are gathered together.
    for block in [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]:
        fully_shard(block, mesh=ranks.mesh, reshard_after_forward=True)
    fully_shard(model, mesh=ranks.mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return model


class ShardedMasters(Masters):
    """This rank's rows of the masters and moments. `gather` and `scatter` methods are collectives.

    weights: whole, on rank 0.
    """

    def __init__(self, model: nn.Module, weights: dict[str, Tensor] | None, recipe: Recipe, ranks: Ranks) -> None:
        self.ranks = ranks
        self.shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        rounded = recipe.precision.weights == "bf16"
        super().__init__(model, weights or {}, recipe.optimizer, rounded=rounded)
        self._serve()

    def clip(self) -> float:
        """Scale the combined gradient to the clip norm of all ranks together; returns its norm before."""
        ours = list(self.trained.values())
        mine = float(torch.nn.utils.get_total_norm([w.grad for w in ours if w.grad is not None], foreach=True))
        norm = math.sqrt(self.ranks.all_reduce([mine * mine])[0])
        torch.nn.utils.clip_grads_with_norm_(ours, self.spec.clip, torch.tensor(norm), foreach=True)
        return norm

    def gather_each(self, shards: Mapping[str, Tensor], take: Callable[[str, Tensor], object]) -> None:
        """All-gather the tensors one after the other, and hand each to `take`."""
        for name, part in shards.items():
            take(name, self.ranks.all_gather(self._local(part.detach()), self.shapes[_parameter(name)]))

    def gather(self, shards: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The whole tensors, in main memory, on rank 0; an empty dict elsewhere."""
        tensors: dict[str, Tensor] = {}

        def take(name: str, tensor: Tensor) -> None:
            if self.ranks.rank == 0:
                tensors[name] = tensor.cpu()

        self.gather_each(shards, take)
        return tensors

    def scatter(self, tensors: Mapping[str, Tensor] | None, names: list[str]) -> dict[str, Tensor]:
        """This rank's rows of rank 0's tensors of these names."""
        return {
            name: self.ranks.shard(None if tensors is None else tensors[name], self.shapes[_parameter(name)])
            for name in names
        }

    def gather_masters(self) -> dict[str, Tensor]:
        """The whole masters, on rank 0."""
        return self.gather(self.masters)

    def gather_served(self) -> dict[str, Tensor]:
        """The whole served weights, on rank 0."""
        return self.gather(self.served)

    def gather_moments(self) -> Moments:
        """The whole `moments`, on rank 0."""
        mine = self.moments()
        return Moments(steps=mine.steps, tensors=self.gather(mine.tensors))

    def scatter_moments(self, steps: int, tensors: Mapping[str, Tensor] | None = None) -> None:
        """`adopt` moments of so many steps. tensors: whole, on rank 0."""
        names = [f"{moment}/{name}" for name in self.trained for moment in MOMENTS]
        self.adopt(Moments(steps=steps, tensors=self.scatter(tensors, names)))

    def gather_state(self) -> dict[str, Tensor]:
        """The whole `state`, on rank 0."""
        return self.gather({f"master/{name}": w for name, w in self.masters.items()} | self.moments().tensors)

    def scatter_state(self, steps: int, tensors: Mapping[str, Tensor] | None = None) -> None:
        """`restore` a state of so many steps. tensors: whole, on rank 0."""
        names = [f"master/{name}" for name in self.masters]
        if steps:
            names += [f"{moment}/{name}" for name in self.trained for moment in MOMENTS]
        self.restore(self.scatter(tensors, names), steps)

    def _master(self, name: str, weights: dict[str, Tensor]) -> Tensor:
        return self.ranks.shard(weights.get(name), self.shapes[name])

    def _local(self, tensor: Tensor) -> Tensor:
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor

    def _all_reduce(self, values: list[float]) -> list[float]:
        return self.ranks.all_reduce(values)


def require_whole(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], names: list[str]) -> None:
    """Errors: ValueError naming the first tensor that is lacking, or of another shape, before any is sent."""
    for name in names:
        tensor, wanted = tensors.get(name), shapes[_parameter(name)]
        if tensor is None or tuple(tensor.shape) != wanted:
            shape = "lacking" if tensor is None else f"of shape {tuple(tensor.shape)}"
            what, _, parameter = name.partition("/")
            raise ValueError(f"{what} of {parameter} is {shape}, and {wanted} is wanted")


def _parameter(name: str) -> str:
    """The parameter that a flat name (`master/<name>`, `exp_avg/<name>`) or a parameter's own speaks of."""
    return name.split("/", 1)[-1]
