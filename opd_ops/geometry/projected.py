"""Sim_k to the projected end: the linear extrapolation of the update until its norm has doubled.

With E the current update, E_s that of an earlier snapshot and D = E - E_s

    P = E + c D,  c > 0,  ||P||_F = 2 ||E||_F        c = (-b + sqrt(b^2 + 3 a e)) / a,  a = D.D, b = E.D, e = E.E
    Sim_k(E, P) = ||V_k(E)' V_k(P)||_F^2 / k         V_k: top-k right singular vectors (input side)

It uses only past snapshots. It is 1 if the trajectory is a straight line from W_0, and low if the recent movement has
other leading directions than the earlier one. The norm is doubled because a run in progress does not know its end.
Not measured: the similarity to the real end (`locking`), and movement that is not linear.
"""

import math

import torch
from torch import Tensor

from opd_ops.geometry.update import Update

GROWTH = 2.0


def projected_end(e: Tensor, before: Tensor) -> Tensor | None:
    """P of updates E and E_s, [out, in], in their dtype; None if E = E_s or E is zero."""
    moved = e - before
    a, b, size = (float((x.double() * y.double()).sum()) for x, y in ((moved, moved), (e, moved), (e, e)))
    if a == 0.0 or size == 0.0:
        return None
    return e + (-b + math.sqrt(b * b + (GROWTH**2 - 1) * a * size)) / a * moved


def similarity_to_end(e: Tensor, before: Tensor, k: int) -> tuple[float | None, str | None]:
    """(Sim_k, None), or (None, reason) if there is no projected end or E or P has no top-k subspace.

    Errors: RuntimeError for updates that are not finite.
    """
    if not (torch.isfinite(e).all() and torch.isfinite(before).all()):
        raise RuntimeError("similarity_to_end takes finite updates")
    end = projected_end(e, before)
    if end is None:
        return None, "nothing has moved since the earlier snapshot"
    dense = e.dtype == torch.float64
    here, there = (Update(x, dense, k).subspaces((k,)) for x in (e, end))
    if reason := here.reasons[0] or there.reasons[0]:
        return None, reason
    cosines = here.input[:, :k].double().T @ there.input[:, :k].double()
    return min(1.0, float(cosines.square().sum()) / k), None
