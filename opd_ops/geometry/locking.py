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

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations, groupby
from typing import Any

import torch
from torch import Tensor

from opd_ops.geometry.exact import SIDES
from opd_ops.geometry.update import Subspaces
from opd_ops.linalg import similarity

Columns = dict[str, list[Any]]  # values by column, one a row
COLUMNS = ("step", "step_other", "side", "k", "view", "similarity", "error", "chance", "reason")


def similarities(bases: Tensor) -> Tensor:
    """Sim_k of all pairs, [T, T], from orthonormal bases [T, n, k], by one product [Tk, n] x [n, Tk]."""
    t, n, k = bases.shape
    flat = bases.transpose(0, 1).reshape(n, t * k)
    return similarity((flat.T @ flat).reshape(t, k, t, k).transpose(1, 2))


def pair_similarities(bases: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Sim_k of pairs of places, in their order, from bases [T, k, n] float64 whose rows are orthonormal.

    One product [rk, n] x [n, k] for every r neighbours that are compared with the same place; nothing is copied.
    """
    _, k, n = bases.shape
    result = torch.empty(len(pairs), dtype=torch.float64)
    for other, places in _neighbours(pairs):
        first = pairs[places[0]][0]
        cosines = bases[first : first + len(places)].reshape(-1, n) @ bases[other].mT
        result[places] = similarity(cosines.reshape(-1, k, k))
    return result


def columns(
    updates: Sequence[tuple[int, Subspaces]], view: str, pairs: Collection[tuple[int, int]] | None = None
) -> Columns:
    """The columns of COLUMNS, with one row per cut, side and pair step < step_other of (step, subspaces).

    updates: in step order, with the same cuts. pairs: those wanted, where `updates` has both; all where None.
    """
    table: Columns = {name: [] for name in COLUMNS}
    steps = [step for step, _ in updates]
    if pairs is None:
        wanted = list(combinations(range(len(steps)), 2))
    else:
        place = {step: index for index, step in enumerate(steps)}
        wanted = sorted((place[step], place[other]) for step, other in pairs if {step, other} <= place.keys())
    for index, k in enumerate(updates[0][1].cuts if wanted else ()):
        reasons = [one.reasons[index] and f"{one.reasons[index]} (step {step})" for step, one in updates]
        missing = [reasons[a] or reasons[b] for a, b in wanted]
        errors = [one.errors[index] for _, one in updates]
        for side in SIDES:
            known = iter(_known_similarities([one for _, one in updates], side, index, wanted))
            extent = updates[0][1].extents[side]
            table["step"] += [steps[a] for a, _ in wanted]
            table["step_other"] += [steps[b] for _, b in wanted]
            table["side"] += [side] * len(wanted)
            table["k"] += [k] * len(wanted)
            table["view"] += [view] * len(wanted)
            table["similarity"] += [None if why else next(known) for why in missing]
            table["error"] += [
                None if why else min(1.0, (errors[a] + errors[b]) / k**0.5)
                for why, (a, b) in zip(missing, wanted, strict=True)
            ]
            table["chance"] += [k / extent if k <= extent else None] * len(wanted)
            table["reason"] += missing
    return table


def rows(
    updates: Sequence[tuple[int, Subspaces]], view: str, pairs: Collection[tuple[int, int]] | None = None
) -> list[dict[str, Any]]:
    """`columns` as one dict a row."""
    table = columns(updates, view, pairs)
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def _known_similarities(updates: list[Subspaces], side: str, index: int, wanted: list[tuple[int, int]]) -> list[float]:
    """Similarities of the wanted pairs, both of which have a subspace at this cut; in their order."""
    k = updates[0].cuts[index]
    defined = [place for place, one in enumerate(updates) if one.reasons[index] is None]
    among = {place: at for at, place in enumerate(defined)}
    pairs = [(among[a], among[b]) for a, b in wanted if a in among and b in among]
    if not pairs:
        return []
    bases = torch.empty(len(defined), k, updates[0].extents[side], dtype=torch.float64)
    for basis, place in zip(bases, defined, strict=True):
        basis.copy_(updates[place].side(side)[:, :k].mT)
    return pair_similarities(bases, pairs).tolist()


def _neighbours(pairs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, list[int]]]:
    """(b, indices of pairs (a, b), (a + 1, b), ...), which are as many as follow each other."""
    order = sorted(range(len(pairs)), key=lambda index: (pairs[index][1], pairs[index][0]))
    ranked = enumerate(order)
    for (other, _), group in groupby(ranked, key=lambda item: (pairs[item[1]][1], pairs[item[1]][0] - item[0])):
        yield other, [index for _, index in group]
