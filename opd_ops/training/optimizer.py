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
    """fp32 masters and moments of a model. `masters` maps parameter names to tensors."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor], spec: AdamW) -> None:
        self.spec = spec
        self.served = dict(model.named_parameters())
        self.masters = {name: weights[name].to(torch.float32).clone() for name in self.served}
        decayed = [w for w in self.masters.values() if w.ndim >= 2]
        plain = [w for w in self.masters.values() if w.ndim < 2]
        self.adamw = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=spec.learning_rate,
            betas=spec.betas,
            eps=spec.eps,
            foreach=True,
        )

    def accumulate(self) -> None:
        """Add the served weights' gradients to the masters', in fp32, and clear them."""
        for name, parameter in self.served.items():
            assert parameter.grad is not None
            master, gradient = self.masters[name], parameter.grad.to(torch.float32)
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def clip(self) -> float:
        """Scale the accumulated gradients to the clip norm; returns their norm before."""
        return float(torch.nn.utils.clip_grad_norm_(list(self.masters.values()), self.spec.clip, foreach=True))

    def discard(self) -> None:
        """Forget the accumulated gradients."""
        self.adamw.zero_grad()

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
        return tensors

    def restore(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Take back what `state` gave after `steps` optimizer steps."""
        self.adamw.state.clear()
        for name, w in self.masters.items():
            w.copy_(tensors[f"master/{name}"])
            if steps:  # before the first step there are no moments
                self.adamw.state[w] = {
                    "step": torch.tensor(float(steps)),
                    "exp_avg": tensors[f"exp_avg/{name}"].clone(),
                    "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].clone(),
                }
        self._serve()

    def _serve(self) -> None:
        with torch.no_grad():
            for name, parameter in self.served.items():
                parameter.copy_(self.masters[name].to(torch.bfloat16))
