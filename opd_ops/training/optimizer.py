"""AdamW on fp32 masters; the model is served the masters rounded to bf16.

The optimizer is torch's. This file adds the pair (master, served weight): gradients of the served weights are upcast to
fp32 and accumulated, the step moves the masters, and the rounded masters are copied into the model.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from opd_ops.recipe import AdamW, Constraint
from opd_ops.training.constraint import Confined
from opd_ops.training.subspace import Bases

MOMENTS = ("exp_avg", "exp_avg_sq")


def learning_rate(spec: AdamW, step: int, steps: int) -> float:
    """Rate of the update that ends step `step` (1-based): linear warm-up, then constant or cosine to a tenth."""
    rate = spec.learning_rate * min(1.0, step / max(1, spec.warmup))
    if spec.schedule == "cosine" and step > spec.warmup:
        progress = (step - spec.warmup) / max(1, steps - spec.warmup)
        rate *= 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
    return rate


@dataclass(frozen=True, kw_only=True)
class Moments:
    """An optimizer's state after `steps` steps: tensors `exp_avg/<name>` and `exp_avg_sq/<name>`."""

    steps: int
    tensors: dict[str, Tensor]


class Masters:
    """fp32 masters and moments of a model. masters: by parameter name. trained: the tensors that AdamW moves, by name.

    rounded: serve the masters rounded to bf16, else the masters themselves. constraint, bases: the subspaces that the
    masters are confined to.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: dict[str, Tensor],
        spec: AdamW,
        *,
        rounded: bool = True,
        constraint: Constraint | None = None,
        bases: Bases | None = None,
    ) -> None:
        self.spec, self.rounded = spec, rounded
        self.served = dict(model.named_parameters())
        self.masters = {name: self._master(name, weights) for name in self.served}
        self.gradients: dict[str, dict[str, Tensor]] = {}
        self.steps = 0  # of the moments
        self.trained, self.confined, itself = dict(self.masters), None, set()
        if constraint is not None:
            self.confined = Confined(constraint, bases or {}, self.masters, spec.weight_decay)
            self.trained |= self.confined.trained
            itself = set(self.confined.coefficients)  # the constraint decays these itself
            if constraint.others == "frozen":
                self.trained = dict(self.confined.trained)
                for name in self.served.keys() - self.trained.keys():
                    self.served[name].requires_grad_(False)
        decayed = [w for name, w in self.trained.items() if w.ndim >= 2 and name not in itself]
        plain = [w for name, w in self.trained.items() if w.ndim < 2 or name in itself]
        self.adamw = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=spec.learning_rate,
            betas=spec.betas,
            eps=spec.eps,
            foreach=True,
        )

    def accumulate(self, term: str) -> None:
        """Add the served weights' gradients to the term's, in fp32, and clear them."""
        gathered = self.gradients.setdefault(term, {})
        for name in self.trained:
            parameter = self.served[name]
            if parameter.grad is None:  # no path from this loss
                gathered.setdefault(name, torch.zeros_like(self.masters[name]))
                continue
            gradient = self._local(parameter.grad).to(torch.float32)
            gathered[name] = gathered[name].add_(gradient) if name in gathered else gradient
            parameter.grad = None

    def combine(self, coefficients: dict[str, float]) -> dict[str, float]:
        """Give the masters the sum of the terms' gradients, each times its coefficient.

        Returns, where there are two terms, the norm of each before its coefficient, and their cosine (0 where one is).
        """
        columns: dict[str, float] = {}
        names = list(self.trained)
        lists = {term: [gathered[name] for name in names] for term, gathered in self.gradients.items()}
        if len(lists) == 2:
            columns = self._relation(lists)
        total: list[Tensor] | None = None
        for term, gradients in lists.items():
            if coefficients[term] != 1.0:
                for gradient in gradients:
                    gradient.mul_(coefficients[term])
            if total is None:
                total = gradients
            else:
                for ours, theirs in zip(total, gradients, strict=True):
                    ours.add_(theirs)
        assert total is not None
        for name, gradient in zip(names, total, strict=True):
            self.masters[name].grad = gradient
        self.gradients = {}
        return columns

    def confine(self) -> dict[str, float]:
        """Project the combined gradient; the removed share of its norm, or nothing without a constraint."""
        return {"removed": self.confined.gradients(self.masters)} if self.confined else {}

    def clip(self) -> float:
        """Scale the combined gradient of all that trains to the clip norm; returns its norm before."""
        return float(torch.nn.utils.clip_grad_norm_(list(self.trained.values()), self.spec.clip, foreach=True))

    def discard(self) -> None:
        """Drop all gradients, also those of an unfinished backward pass."""
        self.adamw.zero_grad()
        for tensor in (*self.masters.values(), *self.served.values()):
            tensor.grad = None
        self.gradients = {}

    def step(self, rate: float, disturb: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Update the masters, serve them and clear gradients; the leaks of a constraint, or nothing without one.

        disturb: called before the masters are served; it may move them.
        """
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        self.steps += 1
        leaked = self.confined.settle(self.masters, rate) if self.confined else {}
        disturb()
        self.discard()
        self._serve()
        return leaked

    def moments(self) -> Moments:
        """The optimizer's own state, live."""
        tensors = {
            f"{moment}/{name}": self.adamw.state[w][moment]
            for name, w in self.trained.items()
            if w in self.adamw.state
            for moment in MOMENTS
        }
        return Moments(steps=self.steps, tensors=tensors)

    def adopt(self, moments: Moments) -> None:
        """Continue with another run's moments and its count of steps, which corrects their bias.

        Errors: ValueError naming the first that is lacking, or of another shape.
        """
        self.adamw.state.clear()
        self.steps = moments.steps
        for name, w in self.trained.items():
            tensors = {moment: moments.tensors.get(f"{moment}/{name}") for moment in MOMENTS}
            for moment, tensor in tensors.items():
                if tensor is None or tensor.shape != w.shape:
                    shape = "lacking" if tensor is None else f"of shape {tuple(tensor.shape)}"
                    raise ValueError(f"{moment} of {name} is {shape}, and {tuple(w.shape)} is wanted")
            self.adamw.state[w] = {"step": torch.tensor(float(moments.steps))} | {
                moment: tensor.to(w.device, copy=True) for moment, tensor in tensors.items() if tensor is not None
            }

    def state(self) -> dict[str, Tensor]:
        """Masters and moments under flat names `master/<name>`, `exp_avg/<name>`, `exp_avg_sq/<name>`.

        With a constraint also its bases and its float64 tensors.
        """
        tensors = {f"master/{name}": w for name, w in self.masters.items()} | self.moments().tensors
        if self.confined:
            tensors |= self.confined.state()
        return {name: tensor.cpu() for name, tensor in tensors.items()}

    def restore(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Load what `state` returned, with moments of `steps` optimizer steps."""
        for name, w in self.masters.items():
            w.copy_(tensors[f"master/{name}"])
        if steps:
            self.adopt(Moments(steps=steps, tensors=tensors))
        else:  # before the first step there are no moments
            self.adamw.state.clear()
            self.steps = 0
        if self.confined:
            self.confined.restore(tensors, self.masters)
        self._serve()

    @torch.no_grad()
    def _serve(self) -> None:
        for name, parameter in self.served.items():
            master = self.masters[name]
            self._local(parameter).copy_(master.to(torch.bfloat16) if self.rounded else master)

    def _relation(self, lists: dict[str, list[Tensor]]) -> dict[str, float]:
        """Norms of two gradients and the cosine between them, in float64."""
        (first, ours), (second, theirs) = lists.items()
        product = sum(float((a.double() * b.double()).sum()) for a, b in zip(ours, theirs, strict=True))
        squares = [sum(float(g.double().square().sum()) for g in gradients) for gradients in (ours, theirs)]
        product, *squares = self._all_reduce([product, *squares])
        norms = [math.sqrt(square) for square in squares]
        return {
            f"{first}_grad_norm": norms[0],
            f"{second}_grad_norm": norms[1],
            "grad_cosine": product / (norms[0] * norms[1]) if all(norms) else 0.0,
        }

    def _master(self, name: str, weights: dict[str, Tensor]) -> Tensor:
        """This process' shard of a master."""
        return weights[name].to(self.served[name].device, torch.float32).clone()

    def _local(self, tensor: Tensor) -> Tensor:
        """This process' shard of a served weight or its gradient."""
        return tensor

    def _all_reduce(self, values: list[float]) -> list[float]:
        """Sums over all processes that hold a shard."""
        return values
