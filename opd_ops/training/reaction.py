"""A guard over a run's update, and the intervention on its steps once the update leaves the reference's band.

The update of a decoder projection is E = W_t - W_begin of the fp32 masters, as an exact difference in float64. Every
`every` steps its singular values give the means over projections that `recipe.reaction` defines; the second reading in
a row outside the band at the mean ||E|| / ||W_begin|| trips the guard, once. From the next step on, with Delta the step
of a matrix by optimizer and decay, U and V the update's leading singular vectors at the trip, and G Gaussian,

    isotropic-noise      W <- W + strength ||Delta||_F G / ||G||_F
    off-channel-noise    the same with (I - U U^T) G (I - V V^T) in place of G

G is drawn from (seed, step, name) on the CPU, so it depends neither on the device nor on restarts. Until the trip, and
with action `none`, the masters are not touched. Not measured: other weights than projections, and the served bf16
weights, whose rounding raises the stable rank of small updates. One reading takes an eigendecomposition of each
projection's smaller Gram matrix.
"""

import hashlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

from opd_ops.linalg import gram_factors, similarity, stable_rank
from opd_ops.recipe.reaction import NOISES, Rail, Reaction, earlier, require_rails
from opd_ops.roles import PROJECTIONS, role

RANK = 16  # of the similarity


class Reacting:
    """One run's guard and reaction: built before the first step, then `before` and `after` around each optimizer step.

    rails: the guard's band. masters: the live fp32 masters by parameter name, which are those the run begins with now.
    Errors: ValueError for rails that are no band, or off-channel noise that no direction is left for.
    """

    def __init__(self, reaction: Reaction, rails: tuple[Rail, ...], masters: dict[str, Tensor], seed: int) -> None:
        require_rails(rails)
        self.reaction, self.rails, self.seed = reaction, rails, seed
        self.watched = {name: w for name, w in masters.items() if w.ndim == 2 and role(name)[1] in PROJECTIONS}
        if not self.watched:
            raise ValueError("a guard watches decoder projections, and there are none")
        self.start = {name: w.detach().clone() for name, w in self.watched.items()}
        self.touched = [name for name in self.watched if role(name)[1] in reaction.roles]
        narrow = [name for name in self.touched if min(self.watched[name].shape) <= reaction.rank]
        if reaction.action == "off-channel-noise" and narrow:
            shape = "x".join(map(str, self.watched[narrow[0]].shape))
            raise ValueError(f"{narrow[0]} is {shape}: nothing is off its channel of rank {reaction.rank}; lower it")
        self.tripped: int | None = None
        self.outside = False  # at the last reading
        self.ranks: dict[int, float] = {}  # mean stable rank by step, of readings that a later one may be compared with
        self.inputs: dict[int, dict[str, Tensor]] = {}  # leading input directions [in, 16] of the same, for similarity
        self.channel: dict[str, tuple[Tensor, Tensor]] = {}  # U [out, rank] and V [in, rank] at the trip
        self.masters_before: dict[str, Tensor] = {}

    def acting(self, step: int) -> bool:
        """Whether the reaction acts on `step`."""
        last = math.inf if self.reaction.steps is None else self.reaction.steps
        return self.tripped is not None and 0 < step - self.tripped <= last

    def released(self, step: int) -> bool:
        """Whether the recipe's constraint is lifted for `step`."""
        return self.reaction.action == "release" and self.acting(step)

    def before(self, step: int) -> None:
        """Call before the optimizer moves the masters in `step`."""
        if self.reaction.action in NOISES and self.acting(step):
            self.masters_before = {name: self.watched[name].detach().clone() for name in self.touched}

    @torch.no_grad()
    def after(self, step: int) -> dict[str, float | int | None]:
        """Call after it, before the masters are served: adds noise, reads the guard; columns of the table training."""
        noise = self._disturb(step) if self.masters_before else None
        if self.tripped is None and step % self.reaction.guard.every == 0:
            self._read(step)
        return {"tripped": self.tripped, "noise": noise}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """For a resume state: tensors under names that begin with reaction/, and facts as JSON types."""
        tensors = {
            f"reaction/input/{step}/{name}": v for step, bases in self.inputs.items() for name, v in bases.items()
        }
        for name, (u, v) in self.channel.items():
            tensors |= {f"reaction/output-channel/{name}": u, f"reaction/input-channel/{name}": v}
        facts = {"tripped": self.tripped, "outside": self.outside, "ranks": sorted(self.ranks.items())}
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Load what `state` returned; other tensors are ignored."""
        self.tripped, self.outside = facts["tripped"], facts["outside"]
        self.ranks = {int(step): value for step, value in facts["ranks"]}
        self.inputs, self.channel, self.masters_before = {}, {}, {}
        for key, tensor in tensors.items():
            kind, _, rest = key.removeprefix("reaction/").partition("/")
            if key.startswith("reaction/input/"):
                step, _, name = rest.partition("/")
                self.inputs.setdefault(int(step), {})[name] = tensor.to(self.watched[name].device)
            elif kind == "output-channel":
                device = self.watched[rest].device
                self.channel[rest] = tensor.to(device), tensors[f"reaction/input-channel/{rest}"].to(device)

    def update(self, name: str) -> Tensor:
        """E of one matrix, float64 [out, in]."""
        return self.watched[name].double() - self.start[name].double()

    def _read(self, step: int) -> None:
        """Read the guard once; trip it where this reading and the one before are outside the band."""
        similar = self.reaction.guard.quantity == "similarity"
        updates = {name: self.update(name) for name in self.watched}
        factors = {name: gram_factors(e, RANK if similar else 1) for name, e in updates.items()}
        norms = {name: float(vector_norm(e)) for name, e in updates.items()}
        relative = [norm / float(vector_norm(self.start[name].double())) for name, norm in norms.items()]
        if all(norms.values()):
            ranks = [stable_rank(norm, float(factors[name][1][0])) for name, norm in norms.items()]
            self.ranks[step] = sum(ranks) / len(ranks)
            if similar:
                self.inputs[step] = {name: v for name, (_, _, v) in factors.items()}
        value = self._value(step)
        band = rail(self.rails, sum(relative) / len(relative))
        outside = value is not None and band is not None and not band[0] <= value <= band[1]
        if outside and self.outside:
            self.tripped = step
            if self.reaction.action == "off-channel-noise":
                leading = {name: gram_factors(updates[name], self.reaction.rank) for name in self.touched}
                self.channel = {name: (u, v) for name, (u, _, v) in leading.items()}
            self.ranks, self.inputs = {}, {}
            return
        self.outside = outside
        self.ranks = {at: rank for at, rank in self.ranks.items() if 4 * at >= step}
        self.inputs = {at: bases for at, bases in self.inputs.items() if 4 * at >= step}

    def _value(self, step: int) -> float | None:
        """The guarded quantity at this reading; None where there is no earlier one to compare with, or no update."""
        quantity, previous = self.reaction.guard.quantity, earlier(self.ranks, step)
        if step not in self.ranks:
            return None
        if quantity == "stable_rank":
            return self.ranks[step]
        if previous is None:
            return None
        if quantity == "stable_rank_ratio":
            return self.ranks[step] / self.ranks[previous]
        pairs = [(v, self.inputs[previous][name]) for name, v in self.inputs[step].items()]
        return sum(float(similarity(v.T @ before)) for v, before in pairs) / len(pairs)

    def _disturb(self, step: int) -> float | None:
        """Add the noise; its norm over the step's, both over all matrices with noise and after rounding to fp32."""
        assert self.reaction.strength is not None
        added, moved = 0.0, 0.0
        for name, before in self.masters_before.items():
            w = self.watched[name]
            size = float(vector_norm(w.double() - before.double()))
            clean = w.clone()
            direction = gaussian(self.seed, step, name, tuple(w.shape)).to(w.device)
            if name in self.channel:
                u, v = self.channel[name]
                direction -= u @ (u.T @ direction)
                direction -= (direction @ v) @ v.T
            w += (self.reaction.strength * size / float(vector_norm(direction)) * direction).to(w.dtype)
            added += float(vector_norm(w.double() - clean.double())) ** 2
            moved += size**2
        self.masters_before = {}
        return (added / moved) ** 0.5 if moved else None


def rail(rails: tuple[Rail, ...], norm: float) -> tuple[float, float] | None:
    """(low, high) at a relative norm, linear in its logarithm between the points; None outside them."""
    if not rails[0][0] <= norm <= rails[-1][0]:
        return None
    above = next(i for i, point in enumerate(rails) if norm <= point[0])
    (n0, l0, h0), (n1, l1, h1) = rails[max(0, above - 1)], rails[above]
    share = math.log(norm / n0) / math.log(n1 / n0) if n1 > n0 else 1.0
    return l0 + share * (l1 - l0), h0 + share * (h1 - h0)


def gaussian(seed: int, step: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """Independent standard normals, float64, that depend on nothing but the arguments."""
    digest = hashlib.sha256(f"reaction/{seed}/{step}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(shape, generator=generator, dtype=torch.float64)
