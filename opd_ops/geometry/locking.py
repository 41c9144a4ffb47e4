"""D8, subspace locking: Sim_k(t, t') = ||V_k(t)' V_k(t')||_F^2 / k, V_k(t) the top-k singular vectors of W_t - W0.

In [0, 1]: the mean squared cosine of the principal angles, 1 for one subspace, k/n on average for two random ones of
R^n. Both sides: `output` (U) and `input` (V, the paper's). The leading vectors of each snapshot are kept, so any pair
of steps costs one k x k product.
Error: a projector whose subspace is off by sines of Frobenius norm e changes Sim_k by at most e / sqrt(k), so the two
errors of a pair add. Where sigma_k and sigma_{k+1} of an update cannot be separated the bound is 1, which says nothing.
Not measured: whether the subspace matters to the loss, and how much of the update it holds (`energy_top16` of
update_spectrum says that). W_t of nearby steps share most of their update, so high similarity of neighbours is no
evidence of locking by itself; compare with the last step.
Source: arXiv 2606.07082, section 4.2 and appendix E.
"""

from itertools import combinations

import torch
from torch import Tensor

from opd_ops.geometry.exact import SIDES
from opd_ops.geometry.update import Subspaces


def similarities(bases: Tensor) -> Tensor:
    """Sim_k of all pairs, [T, T], from orthonormal bases [T, n, k], by one product [Tk, n] x [n, Tk]."""
    t, n, k = bases.shape
    flat = bases.transpose(0, 1).reshape(n, t * k)
    cosines = (flat.T @ flat).reshape(t, k, t, k)
    return (cosines.square().sum((1, 3)) / k).clamp(max=1.0)


def rows(updates: list[tuple[int, Subspaces]], view: str, pairs: set[tuple[int, int]] | None = None) -> list[dict]:
    """One row per k, side and pair step < step_other of (step, subspaces), which come in step order and share cuts.

    pairs: the pairs wanted; all where None.
    """
    found = []
    for index, k in enumerate(updates[0][1].cuts if len(updates) > 1 else ()):
        defined = [i for i, (_, one) in enumerate(updates) if one.reasons[index] is None]
        place = {i: at for at, i in enumerate(defined)}
        for side in SIDES:
            table = None
            if defined:
                table = similarities(torch.stack([updates[i][1].side(side)[:, :k].double() for i in defined]))
            for a, b in combinations(range(len(updates)), 2):
                (step, one), (other, two) = updates[a], updates[b]
                if pairs is not None and (step, other) not in pairs:
                    continue
                reasons = ((t, held.reasons[index]) for t, held in (updates[a], updates[b]))
                reason = next((f"{why} (step {t})" for t, why in reasons if why), None)
                extent = one.extents[side]
                found.append(
                    {
                        "step": step,
                        "step_other": other,
                        "side": side,
                        "k": k,
                        "view": view,
                        "similarity": None if reason or table is None else float(table[place[a], place[b]]),
                        "error": None if reason else min(1.0, (one.errors[index] + two.errors[index]) / k**0.5),
                        "chance": k / extent if k <= extent else None,
                        "reason": reason,
                    }
                )
    return found
