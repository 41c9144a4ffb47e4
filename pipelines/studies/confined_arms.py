"""Recipes of arms that continue another arm from an early step, free or confined to a few directions."""

from dataclasses import replace
from typing import Any

from opd_ops.recipe import Basis, Constraint, Horizon, Random, Recipe, SnapshotOf, UpdateOf, WeightsOf

SNAPSHOTS = 10  # of a run, equally spaced, and one at 5 % of it


def continue_arm(parent: Recipe, begin: int, end: int) -> Recipe:
    """`parent` from the masters of its step `begin`, with a fresh optimizer, to its step `end`: `<arm>-at<begin>`."""
    steps = end - begin
    snapshots = {round(steps / 20)} | {round(steps * i / SNAPSHOTS) for i in range(1, SNAPSHOTS + 1)}
    return replace(
        parent,
        arm=f"{parent.arm}-at{begin}",
        start=SnapshotOf(recipe=parent.name, step=begin),
        horizon=Horizon(
            steps=steps, snapshots=tuple(sorted(snapshots - {0})), resume_every=parent.horizon.resume_every
        ),
    )


def confine_arm(free: Recipe, basis: str, rank: int = 16) -> Recipe:
    """A continued arm confined to `rank` input directions, gradient only: `<arm>-<basis><rank>`.

    basis: `own`, the update of its parent at its first step; `random`; `start`, the first weights of its parent; or
    another arm of the study, whose update at that step gives the basis.
    """
    start = free.start
    assert isinstance(start, SnapshotOf)
    whose: dict[str, Basis] = {
        "own": UpdateOf(recipe=start.recipe, step=start.step),
        "random": Random(),
        "start": WeightsOf(recipe=start.recipe),
    }
    chosen = whose.get(basis) or UpdateOf(recipe=f"{free.study}.{basis}", step=start.step)
    return replace(free, arm=f"{free.arm}-{basis}{rank}", constraint=Constraint(basis=chosen, rank=rank))


def change_constraint(recipe: Recipe, word: str, **fields: Any) -> Recipe:
    """A confined arm with another field of its constraint: `<arm>-<word>`."""
    assert recipe.constraint is not None
    constraint = replace(recipe.constraint, **fields)
    return replace(recipe, arm=f"{recipe.arm}-{word}", constraint=constraint)
