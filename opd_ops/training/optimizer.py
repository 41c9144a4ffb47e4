"""AdamW on fp32 masters; the model's own weights are always the masters rounded to bf16.

The optimizer is torch's. What is ours is the pair (master, served weight): gradients of the served weights are
upcast to fp32 and added up there, the step moves the masters, and the rounded masters are copied back.
"""

import math

import torch
from torch import Tensor, nn

from opd_ops.recipe import AdamW


def learning_rate(spec: AdamW, step: int, steps: int) -> float:
    """Rate of the update that ends step `step` (1-based): linear warm-up, then constant or cosine to a tenth."""
    rate = spec.learning_rate * min(1.0, step / max(1, spec.warmup))
    if spec.schedule == "cosine" and step > spec.warmup:
        progress = (step - spec.warmup) / max(1, steps - spec.warmup)
        rate *= 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
    return rate


class Masters:
    """fp32 masters and moments of a model. `masters` maps parameter names to tensors.

    rounded: the model is served the masters rounded to bf16, else the masters themselves.
    """

    def __init__(self, model: nn.Module, weights: dict[str, Tensor], spec: AdamW, *, rounded: bool = True) -> None:
        self.spec, self.rounded = spec, rounded
        self.served = dict(model.named_parameters())
        self.masters = {name: weights[name].to(p.device, torch.float32).clone() for name, p in self.served.items()}
        self.gradients: dict[str, dict[str, Tensor]] = {}
        decayed = [w for w in self.masters.values() if w.ndim >= 2]
        plain = [w for w in self.masters.values() if w.ndim < 2]
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
        for name, parameter in self.served.items():
            if parameter.grad is None:  # no path from this loss
                gathered.setdefault(name, torch.zeros_like(self.masters[name]))
                continue
            gradient = parameter.grad.to(torch.float32)
            gathered[name] = gathered[name].add_(gradient) if name in gathered else gradient
            parameter.grad = None

    def combine(self, coefficients: dict[str, float]) -> dict[str, float]:
        """Give the masters the sum of the terms' gradients, each times its coefficient.

        Returns, where there are two terms, the norm of each before its coefficient, and their cosine (0 where one is).
        """
        found: dict[str, float] = {}
        names = list(self.masters)
        lists = {term: [gathered[name] for name in names] for term, gathered in self.gradients.items()}
        if len(lists) == 2:
            found = _relation(lists)
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
        return found

    def clip(self) -> float:
        """Scale the combined gradient to the clip norm; returns its norm before."""
        return float(torch.nn.utils.clip_grad_norm_(list(self.masters.values()), self.spec.clip, foreach=True))

    def discard(self) -> None:
        """Forget the gradients."""
        self.adamw.zero_grad()
        self.gradients = {}

    def step(self, rate: float) -> None:
        """Update the masters, serve them, clear gradients."""
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        self.discard()
        self._serve()

    def state(self) -> dict[str, Tensor]:
        """Masters and moments under flat names `master/<name>`, `exp_avg/<name>`, `exp_avg_sq/<name>`."""
        tensors = {f"master/{name}": w for name, w in self.masters.items()}
        for name, w in self.masters.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                if w in self.adamw.state:
                    tensors[f"{moment}/{name}"] = self.adamw.state[w][moment]
        return {name: tensor.cpu() for name, tensor in tensors.items()}

    def restore(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Take back what `state` gave after `steps` optimizer steps."""
        self.adamw.state.clear()
        for name, w in self.masters.items():
            w.copy_(tensors[f"master/{name}"])
            if steps:  # before the first step there are no moments
                self.adamw.state[w] = {
                    "step": torch.tensor(float(steps)),
                    "exp_avg": tensors[f"exp_avg/{name}"].to(w.device, copy=True),
                    "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(w.device, copy=True),
                }
        self._serve()

    @torch.no_grad()
    def _serve(self) -> None:
        for name, parameter in self.served.items():
            master = self.masters[name]
            parameter.copy_(master.to(torch.bfloat16) if self.rounded else master)


def _relation(lists: dict[str, list[Tensor]]) -> dict[str, float]:
    """Norms of two gradients and the cosine between them, in float64."""
    (first, ours), (second, theirs) = lists.items()
    product = sum(float((a.double() * b.double()).sum()) for a, b in zip(ours, theirs, strict=True))
    norms = [math.sqrt(sum(float(g.double().square().sum()) for g in gradients)) for gradients in (ours, theirs)]
    return {
        f"{first}_grad_norm": norms[0],
        f"{second}_grad_norm": norms[1],
        "grad_cosine": product / (norms[0] * norms[1]) if all(norms) else 0.0,
    }
