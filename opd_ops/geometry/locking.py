"""D8, subspace locking: Sim_k(t, t') = ||V_k(t)' V_k(t')||_F^2 / k, V_k(t) the top-k singular vectors of W_t - W0.

In [0, 1]: the mean squared cosine of the principal angles, 1 for one subspace, k/n on average for two random ones of
R^n. Both sides: `output` (U) and `input` (V, the paper's). Not measured: whether the subspace matters to the loss, and
how much of the update it holds (`energy_top16` of update_spectrum says that). W_t of nearby steps share most of their
update, so high similarity of neighbours is no evidence of locking by itself; compare with the last step.
Source: arXiv 2606.07082, section 4.2 and appendix E.
"""

from itertools import combinations

import torch
from torch import Tensor

from opd_ops.geometry.exact import SIDES, Factors


def similarities(bases: Tensor) -> Tensor:
    """Sim_k of all pairs, [T, T], from orthonormal bases [T, n, k], by one product [Tk, n] x [n, Tk]."""
    t, n, k = bases.shape
    flat = bases.transpose(0, 1).reshape(n, t * k)
    cosines = (flat.T @ flat).reshape(t, k, t, k)
    return (cosines.square().sum((1, 3)) / k).clamp(max=1.0)


def undefined(factors: Factors, step: int, k: int) -> str | None:
    """Why the update at a step has no top-k subspace, or None where it has one."""
    if k > len(factors.s):
        return f"k={k} exceeds min(m, n)={len(factors.s)}"
    if factors.sigma(1) == 0.0:
        return f"zero update at step {step}"
    return None if factors.resolves(k) else f"sigma_{k} of the update at step {step} is numerically zero"


def rows(updates: list[tuple[int, Factors]], ks: tuple[int, ...], view: str) -> list[dict]:
    """One row per k, side and pair step < step_other of (step, factors of the update), which come in step order."""
    found = []
    for k in ks if len(updates) > 1 else ():
        reasons = [undefined(factors, step, k) for step, factors in updates]
        for side in SIDES:
            bases = [factors.basis(side)[:, :k] for _, factors in updates]
            table = similarities(torch.stack(bases)).tolist()
            for a, b in combinations(range(len(updates)), 2):
                reason = reasons[a] or reasons[b]
                found.append(
                    {
                        "step": updates[a][0],
                        "step_other": updates[b][0],
                        "side": side,
                        "k": k,
                        "view": view,
                        "similarity": None if reason else table[a][b],
                        "chance": k / len(bases[0]) if k <= len(bases[0]) else None,
                        "reason": reason,
                    }
                )
    return found
