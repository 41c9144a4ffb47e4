"""One intervention on a run, tripped by a guard when its update leaves the band of reference runs."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from opd_ops.recipe.name import require_name
from opd_ops.roles import PROJECTIONS

Quantity = Literal["stable_rank", "stable_rank_ratio", "similarity"]
Action = Literal["none", "isotropic-noise", "off-channel-noise", "release"]
NOISES: tuple[Action, ...] = ("isotropic-noise", "off-channel-noise")
Rail = tuple[float, float, float]  # relative norm, low, high


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Watch the update W_t - W_begin of the fp32 masters, as means over the decoder projections.

        stable_rank        ||.||_F^2 / ||.||_2^2
        stable_rank_ratio  the same over that of the `earlier` reading
        similarity         Sim_16, input side, to the `earlier` reading

    The guard trips at the second of two readings in a row outside the band at their relative norm. The band is that of
    `reference`, calibrated from that recipe's measured runs when the run begins, or `rails`: points at ascending
    relative norms, interpolated in its logarithm. Outside the band's norms there is no verdict.
    """

    quantity: Quantity
    reference: str | None = None  # a recipe
    seeds: tuple[int, ...] = (0, 1, 2)  # of the reference's runs
    rails: tuple[Rail, ...] | None = None
    every: int = 5  # optimizer steps between readings

    def __post_init__(self) -> None:
        if self.quantity not in ("stable_rank", "stable_rank_ratio", "similarity"):
            raise ValueError(
                f"unknown guard.quantity {self.quantity!r}; known: stable_rank, stable_rank_ratio, similarity"
            )
        if (self.reference is None) == (self.rails is None):
            raise ValueError("a guard has one band: name its reference recipe, or give its rails")
        if self.reference is not None:
            require_name(self.reference, "guard.reference")
        if self.every < 1:
            raise ValueError(f"guard.every is at least 1 step, got {self.every}")
        require_rails(self.rails or ((1.0, 0.0, 1.0),))


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """What a tripped guard changes, from the step after the trip. Delta is the step of a matrix, decay included.

    none               nothing: the control that shows what tripping and watching do by themselves
    isotropic-noise    W <- W + N, N Gaussian and scaled to ||N||_F = strength ||Delta||_F
    off-channel-noise  the same norm, without the top `rank` input and output directions of the update at the trip:
                       N = (I - U U^T) G (I - V V^T), then scaled
    release            the recipe's constraint is lifted
    """

    guard: Guard
    action: Action
    strength: float | None = None  # of noise: its share of the step's norm
    rank: int = 16  # directions kept free of off-channel noise
    steps: int | None = None  # how long it acts; None: to the run's end
    roles: tuple[str, ...] = PROJECTIONS  # of the matrices that noise is added to

    def __post_init__(self) -> None:
        if self.action not in ("none", "release", *NOISES):
            raise ValueError(f"unknown reaction.action {self.action!r}; known: none, {', '.join(NOISES)}, release")
        if (self.strength is None) == (self.action in NOISES):
            raise ValueError(f"reaction.strength belongs to {' and '.join(NOISES)}, got {self.strength}")
        if self.strength is not None and not 0 < self.strength < float("inf"):
            raise ValueError(f"reaction.strength is a share above 0 of the step's norm, got {self.strength:g}")
        if self.rank < 1:
            raise ValueError(f"reaction.rank is at least 1, got {self.rank}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"reaction.steps is at least 1, got {self.steps}")
        if not self.roles or not set(self.roles) <= set(PROJECTIONS):
            raise ValueError(f"reaction.roles are of {', '.join(PROJECTIONS)}, got {', '.join(self.roles) or 'none'}")


def earlier(steps: Iterable[int], step: int) -> int | None:
    """The step that a snapshot or reading is compared with: the last between a quarter and a half of `step`, or None.

    The direct predecessor would make the numbers depend on the spacing of snapshots.
    """
    return max((before for before in steps if step <= 4 * before and 2 * before <= step), default=None)


def require_rails(rails: tuple[Rail, ...]) -> None:
    """Errors: ValueError unless the norms are positive and ascend, and every low is at most its high."""
    norms = [norm for norm, _, _ in rails]
    if not rails or norms[0] <= 0 or any(a >= b for a, b in pairwise(norms)):
        raise ValueError(f"guard.rails are (relative norm, low, high) at ascending norms above 0, got norms {norms}")
    if crossed := [rail for rail in rails if not rail[1] <= rail[2]]:
        raise ValueError(f"guard.rails have low above high at relative norm {crossed[0][0]:g}")
