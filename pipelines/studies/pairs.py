"""Which pairs of a trajectory's snapshots are compared (the table locking): all, or few for each snapshot.

Up to WHOLE snapshots, few means all pairs, which cost no more (at 27 snapshots 15 ms of a 128-wide matrix against 20
ms). Above that, few means for every snapshot t the pairs with
    the last one                                     when the final subspace is in place
    the one before                                   how fast it turns
    `earlier`, between a quarter and half of t       what a guard-rail reads (similarity_previous)
    the one nearest to each of SHARES of t           what regimes compare, whichever snapshot they end at
    anchors: those that `steps.choose` calls few     how far it has turned from fixed steps
so at most 5 + steps.MOST a snapshot. Any other pair is computed from stored subspaces when all are requested.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import combinations, pairwise

from opd_ops.recipe.reaction import earlier
from pipelines.studies.steps import ALL, FEW, choose_steps

WHOLE = 30  # snapshots of which few pairs are all
SHARES = (0.10, 0.25)  # of the steps so far


def require_pairs(option: str, text: str) -> str:
    """Return the choice. Errors: ValueError if it is neither all nor few."""
    if text not in (ALL, FEW):
        raise ValueError(f"{option} {text!r} is neither all nor few; choose one of them")
    return text


def choose_pairs(steps: Sequence[int], choice: str) -> frozenset[tuple[int, int]]:
    """(step, later step) of the ascending `steps`, from 1 up, that a choice takes. Errors: as `require_pairs`."""
    return _choose_pairs(tuple(steps), require_pairs("locking_pairs", choice))


def nearest_step(steps: Iterable[int], end: int, share: float) -> int | None:
    """The step before `end` that is nearest to a share of it, the earlier of two; None where there is none."""
    return min((step for step in steps if step < end), key=lambda step: (abs(step / end - share), step), default=None)


@lru_cache(maxsize=16)  # all matrices of a trajectory have the same steps, but for a few
def _choose_pairs(steps: tuple[int, ...], choice: str) -> frozenset[tuple[int, int]]:
    if choice == ALL or len(steps) <= WHOLE:
        return frozenset(combinations(steps, 2))
    pairs = set(pairwise(steps)) | {(step, steps[-1]) for step in steps[:-1]}
    for anchor in choose_steps(steps, FEW):
        pairs |= {(anchor, step) for step in steps if step > anchor}
    for end in steps:
        pairs |= {(step, end) for share in SHARES if (step := nearest_step(steps, end, share)) is not None}
        if (before := earlier(steps, end)) is not None:
            pairs.add((before, end))
    return frozenset(pairs)
