"""How far a run has moved, ||W_t - W_0||_F over all decoder projections of the fp32 masters, in float64.

Not measured: embeddings, norms and biases, which move too.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from opd_ops.recipe import NormOf
from opd_ops.roles import PROJECTIONS, role
from pipelines.store import integrity
from pipelines.store.objects import Store
from pipelines.store.tensors import TensorRef, read
from pipelines.store.trajectory import Trajectory
from pipelines.studies.catalog import suggest_command


class Reach:
    """The distance of weights from those that a run began with. norm: the distance at which the run ends."""

    def __init__(self, norm: float, begin: Mapping[str, TensorRef]) -> None:
        self.norm = norm
        self.begin = read({name: ref for name, ref in sorted(begin.items()) if role(name)[1] in PROJECTIONS})

    def distance(self, weights: Mapping[str, Tensor]) -> float:
        """||W - W_0||_F over the projections."""
        total = 0.0
        for name, start in self.begin.items():
            self.begin[name] = start = start.to(weights[name].device)  # copied there once
            total += float((weights[name].double() - start.double()).square().sum())
        return math.sqrt(total)


def read_target(store: Store, until: NormOf, seed: int, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """The norm of a run's whole update, and the digests of the two snapshots that it is of.

    known: what this returned before. Its norm is kept where the snapshots are the same, since another number of threads
    could change its last digit.
    Errors: ValueError where the run is not complete.
    """
    trajectory = Trajectory(store, until.recipe, seed if until.seed is None else until.seed)
    end = trajectory.end()
    if end is None:
        raise ValueError(
            f"{trajectory.prefix} is not complete, and this run ends at its norm: "
            f"{suggest_command(trajectory.recipe, trajectory.seed)}"
        )
    digests = {"start": trajectory.digest(0), "end": trajectory.digest(end["step"])}
    if known and digests.items() <= known.items():
        return known
    weights = read(integrity.verified_refs(trajectory, end["step"]))
    return digests | {"norm": Reach(0.0, integrity.verified_refs(trajectory, 0)).distance(weights)}
