"""The suite interventions: arms taken up again at an early step and confined to 16 directions (arXiv 2606.07082, 4.2).

Each of opd, sft, sft-matched and rlvr goes on from the masters of its step 20 with a fresh optimizer to its step 100:

    <arm>-at20              free: what the others are compared with
    <arm>-at20-own16        the leading 16 right singular vectors of its own update at step 20, gradient only
    <arm>-at20-random16     16 random directions
    <arm>-at20-start16      the leading 16 of the weights it began with
    <arm>-at20-<other>16    the leading 16 of another arm's update at step 20

opd and sft vary one factor of own16 each: its rank (own4, own64), the step where it begins (at5, at50), both sides
(`-both`), the projected update or the compressed optimizer in place of the projected gradient (`-update`,
`-compressed`; `-matched`: compressed, with steps as long as the whole matrix'). sft's gate opens at its step 80 or 90;
its continuations have no gate, so they go a little further.
"""

from opd_ops.recipe import Recipe
from pipelines.studies.confined_arms import change_constraint, confine_arm, continue_arm
from pipelines.studies.tiny.core import STEPS, opd, rlvr, sft, sft_matched

BEGIN = 20


def interventions() -> tuple[Recipe, ...]:
    arms = []
    for parent, other in ((opd(), sft()), (sft(), opd()), (sft_matched(), opd()), (rlvr(), opd())):
        free = continue_arm(parent, BEGIN, STEPS)
        arms += [free, *(confine_arm(free, basis) for basis in ("own", "random", "start", other.arm))]
    for parent in (opd(), sft()):
        free = continue_arm(parent, BEGIN, STEPS)
        centre = confine_arm(free, "own")
        arms += [confine_arm(free, "own", rank) for rank in (4, 64)]
        arms += [confine_arm(continue_arm(parent, begin, STEPS), "own") for begin in (5, 50)]
        arms.append(change_constraint(centre, "both", side="both"))
        arms += [change_constraint(centre, mode, mode=mode) for mode in ("update", "compressed")]
        arms.append(change_constraint(centre, "matched", mode="compressed", matched=True))
    return tuple(arms)
