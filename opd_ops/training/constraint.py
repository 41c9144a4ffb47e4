"""A run confined to subspaces: projected gradients and steps, and how much of the update leaks out.

The modes are those of `opd_ops.recipe.constraint`. fp32 masters cannot stay in a subspace: one rounding of a weight of
0.1 is 4e-9, and a step is 3e-5. So the modes that promise to stay keep the update in float64 (`update`: the weights;
`compressed`: the coefficients), and the masters are its rounding. The leak is measured before that rounding.
In `compressed`, AdamW moves a tensor of zeros: its value after a step is the step, scaled up where the recipe says
`matched`. Decay is -lr wd P(W).
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from opd_ops.recipe import Constraint
from opd_ops.roles import role
from opd_ops.training.subspace import Bases, Leak, Subspace

ORTHONORMAL = 1e-10  # largest entry of V^T V - 1


class Confined:
    """The confined matrices among `masters` (fp32, by parameter name, as the run begins).

    trained: the tensors that AdamW moves for them, by name: the masters themselves, or coefficients. decay: weight
    decay of `compressed`, whose coefficients AdamW must not decay.

    Errors: ValueError naming a matrix without a basis, or one whose basis does not fit it or is not orthonormal.
    """

    def __init__(self, constraint: Constraint, bases: Bases, masters: Mapping[str, Tensor], decay: float) -> None:
        self.mode, self.decay = constraint.mode, decay
        names = confined_names(constraint, masters)
        if lacking := [name for name in names if name not in bases]:
            raise ValueError(f"the constraint has no basis for {lacking[0]} ({len(lacking)} lacking)")
        for name in names:
            _require_fit(name, constraint, bases[name], masters[name])
        self.bases = {name: bases[name].to(masters[name].device) for name in names}
        self.begin = {name: masters[name].clone() for name in names}
        self.trained = {name: masters[name] for name in names}
        self.last: dict[str, Tensor] = {}  # W after the last step: float64 where it is confined, else as the masters
        self.coefficients: dict[str, Tensor] = {}  # C of W = W_begin + expand(C)
        self.stretch: dict[str, float] = {}  # by which AdamW's step of C is multiplied
        if self.mode == "compressed":
            self.coefficients = {name: self.bases[name].compress(torch.zeros_like(w)) for name, w in self.begin.items()}
            self.trained = {name: c.float() for name, c in self.coefficients.items()}
            ratios = {name: self.begin[name].numel() / c.numel() for name, c in self.coefficients.items()}
            self.stretch = {name: ratio**0.5 if constraint.matched else 1.0 for name, ratio in ratios.items()}
        elif self.mode == "update":
            self.last = {name: w.double() for name, w in self.begin.items()}
        else:
            self.last = {name: w.clone() for name, w in self.begin.items()}

    def gradients(self, masters: Mapping[str, Tensor]) -> float:
        """Project the masters' gradients, or give them to the coefficients; the removed share of their norm.

        sqrt(1 - ||P g||^2 / ||g||^2) over all matrices together, 0 where the gradient is.
        """
        kept_square = square = 0.0
        for name, subspace in self.bases.items():
            gradient = masters[name].grad
            assert gradient is not None
            compressed = subspace.compress(gradient)
            kept_square += float(compressed.square().sum())
            square += float(gradient.double().square().sum())
            if self.mode == "compressed":
                masters[name].grad = None
                self.trained[name].grad = compressed.float()
            else:
                gradient.copy_(subspace.expand(compressed))
        return math.sqrt(max(0.0, 1.0 - kept_square / square)) if square else 0.0

    @torch.no_grad()
    def settle(self, masters: Mapping[str, Tensor], rate: float) -> dict[str, float]:
        """Confine AdamW's last step; the leak of that step, and of the whole update since the start."""
        step, whole = Leak(), Leak()
        for name, subspace in self.bases.items():
            step.add(
                subspace, self._coefficient_step(name, rate) if self.coefficients else self._own_step(name, masters)
            )
            update = self._update(name)
            whole.add(subspace, update)
            if self.mode == "update":
                masters[name].copy_(self.last[name])
            elif self.mode == "compressed":
                masters[name].copy_(self.begin[name].double() + update)
        return {"leaked_step": step.fraction, "leaked": whole.fraction}

    def state(self) -> dict[str, Tensor]:
        """Tensors for a resume state, with the bases, since their source may be gone by then."""
        tensors = {f"coefficients/{name}": c for name, c in self.coefficients.items()}
        if self.mode == "update":
            tensors |= {f"exact/{name}": w for name, w in self.last.items()}
        for name, subspace in self.bases.items():
            for side, basis in (("right", subspace.right), ("left", subspace.left)):
                if basis is not None:
                    tensors[f"basis/{side}/{name}"] = basis
        return tensors

    def restore(self, tensors: Mapping[str, Tensor], masters: Mapping[str, Tensor]) -> None:
        """Load what `state` returned, after `masters` were restored. The bases stay those of the constructor."""
        for name in self.bases:
            if self.coefficients:
                self.coefficients[name].copy_(tensors[f"coefficients/{name}"])
            else:
                self.last[name].copy_(tensors[f"exact/{name}"] if self.mode == "update" else masters[name])

    def _own_step(self, name: str, masters: Mapping[str, Tensor]) -> Tensor:
        """The applied step of a matrix whose own weights AdamW moved."""
        before = self.last[name]
        step = masters[name].double() - before.float().double()
        after = before + self.bases[name].project(step) if self.mode == "update" else masters[name].clone()
        self.last[name] = after
        return after.double() - before.double()

    def _coefficient_step(self, name: str, rate: float) -> Tensor:
        """The applied step of a matrix whose coefficients AdamW moved."""
        subspace, moved = self.bases[name], self.trained[name]
        before, c = self._update(name), self.coefficients[name]
        c += self.stretch[name] * moved.double() - rate * self.decay * (subspace.compress(self.begin[name]) + c)
        moved.zero_()
        return self._update(name) - before

    def _update(self, name: str) -> Tensor:
        """W - W_begin, float64."""
        if self.coefficients:
            return self.bases[name].expand(self.coefficients[name])
        return self.last[name].double() - self.begin[name].double()


def confined_names(constraint: Constraint, names: Iterable[str]) -> list[str]:
    """The model's parameters that are confined. Errors: ValueError for none."""
    confined = [name for name in names if role(name)[1] in constraint.roles]
    if not confined:
        raise ValueError(f"the model has no matrix of the constraint's roles {', '.join(constraint.roles)}")
    return confined


def stored_bases(tensors: Mapping[str, Tensor]) -> dict[str, Subspace]:
    """The bases that `Confined.state` put into a resume state."""
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("basis/"):
            _, side, name = key.split("/", 2)
            sides.setdefault(name, {})[side] = tensor
    return {name: Subspace(**found) for name, found in sides.items()}


def _require_fit(name: str, constraint: Constraint, subspace: Subspace, weight: Tensor) -> None:
    for side, size, basis in (("left", weight.shape[0], subspace.left), ("right", weight.shape[1], subspace.right)):
        if (basis is not None) != (constraint.side in (side, "both")):
            raise ValueError(f"{name} is confined on side {constraint.side!r}: its {side} basis is wrong or lacking")
        if basis is None:
            continue
        shape = (size, constraint.rank)
        if tuple(basis.shape) != shape or basis.dtype != torch.float64:
            actual = f"{tuple(basis.shape)} {str(basis.dtype).removeprefix('torch.')}"
            raise ValueError(f"the {side} basis of {name} is {actual}, and {shape} float64 is wanted")
        error = float((basis.T @ basis - torch.eye(constraint.rank).to(basis)).abs().max())
        if not error <= ORTHONORMAL:
            raise ValueError(
                f"the {side} basis of {name} is not orthonormal: products of its columns err by {error:.1e}"
            )
