"""A run confined to a subspace: its basis, the matrices and sides it applies to, and the part of a step it confines."""

from dataclasses import dataclass, field
from typing import Literal

from opd_ops.recipe.later import LATER
from opd_ops.recipe.name import require_name
from opd_ops.roles import PROJECTIONS

Side = Literal["right", "left", "both"]
Mode = Literal["gradient", "update", "compressed"]


@dataclass(frozen=True, kw_only=True)
class UpdateOf:
    """The leading singular vectors of another run's update, W_step - W_0 of its fp32 masters."""

    recipe: str
    step: int
    seed: int | None = None  # None: the run's own seed
    kind: Literal["update"] = "update"

    def __post_init__(self) -> None:
        require_name(self.recipe, "basis.recipe")
        if self.step < 1:
            raise ValueError(f"basis.step is a step from 1 up, where there is an update, got {self.step}")


@dataclass(frozen=True, kw_only=True)
class WeightsOf:
    """The leading singular vectors of a run's weights themselves at a snapshot, by default those it began with."""

    recipe: str
    step: int = 0
    seed: int | None = None
    kind: Literal["weights"] = "weights"

    def __post_init__(self) -> None:
        require_name(self.recipe, "basis.recipe")
        if self.step < 0:
            raise ValueError(f"basis.step is a step from 0 up, got {self.step}")


@dataclass(frozen=True, kw_only=True)
class Random:
    """Uniformly random subspaces, each matrix its own, drawn from the run's seed and this one."""

    draw: int = 0
    kind: Literal["random"] = "random"


@dataclass(frozen=True, kw_only=True)
class Given:
    """Orthonormal columns of a safetensors file: `right/<parameter>` [in, >= K] and `left/<parameter>` [out, >= K]."""

    path: str
    kind: Literal["given"] = "given"


Basis = UpdateOf | WeightsOf | Random | Given


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """Confine the chosen matrices W [out, in] of a run to K directions of the input (right), output (left) or both.

    With V [in, K] and U [out, K] orthonormal, P(X) = X V V^T (right), U U^T X (left) or U U^T X V V^T (both):

    gradient     g <- P(g) before clipping (arXiv 2606.07082); Adam's element-wise scaling and decay leave the subspace
    update       besides, the step after Adam and weight decay: W <- W + P(step), so that W - W_begin stays inside
    compressed   Adam runs on the coefficients g V, U^T g or U^T g V with a basis that never changes (GaLore, arXiv
                 2403.03507, refreshes it); weight decay is -lr wd P(W)

    An AdamW step moves every entry by about the learning rate, so one of c coefficients of a matrix of n weights is
    sqrt(c / n) as long as a whole one; `matched` multiplies it by sqrt(n / c), decay apart (a GaLore alpha per matrix).
    The rank is at most the smaller side of every matrix. `frozen` weights do not decay, and do not count when clipping.
    """

    basis: Basis
    rank: int = 16
    side: Side = "right"
    mode: Mode = "gradient"
    roles: tuple[str, ...] = PROJECTIONS  # of the matrices that are confined
    others: Literal["free", "frozen"] = "free"  # every other weight
    matched: bool = field(default=False, metadata=LATER)  # of `compressed`: steps as long as those of the whole matrix

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"constraint.rank is at least 1, got {self.rank}")
        if unknown := [role for role in self.roles if role not in PROJECTIONS]:
            raise ValueError(f"constraint.roles are of {', '.join(PROJECTIONS)}, got {', '.join(unknown)}")
        if not self.roles:
            raise ValueError("constraint.roles names no matrix")
        for name, value, known in (
            ("side", self.side, ("right", "left", "both")),
            ("mode", self.mode, ("gradient", "update", "compressed")),
            ("others", self.others, ("free", "frozen")),
        ):
            if value not in known:
                raise ValueError(f"unknown constraint.{name} {value!r}; known: {', '.join(known)}")
        if self.matched and self.mode != "compressed":
            raise ValueError(f"constraint.matched is of mode 'compressed', got mode {self.mode!r}: leave it out")
