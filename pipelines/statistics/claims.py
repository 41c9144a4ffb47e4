"""Default claims of a study without claims: every pair of core arms differs in every metric."""

from itertools import combinations

from pipelines.statistics.forms import Forms
from pipelines.statistics.metrics import (
    ACCURACY,
    LOW_MAGNITUDE,
    NORM,
    NSS,
    PRINCIPAL,
    ROTATION,
    SIMILARITY,
    STABLE_RANK_CHANGE,
    UNCHANGED,
    Metric,
)
from pipelines.studies.claim import Claim, Control
from pipelines.studies.story import Story

COMPARED: tuple[Metric, ...] = (
    UNCHANGED,
    *ROTATION.values(),
    *NSS.values(),
    *NORM.values(),
    LOW_MAGNITUDE,
    PRINCIPAL,
    *STABLE_RANK_CHANGE.values(),
    *SIMILARITY.values(),
)


def default_claims(story: Story) -> tuple[Claim, ...]:
    """ "left differs from right: metric" for every pair of core arms and every metric of `COMPARED` and accuracy.

    A pair of an arm and its declared control is in the section `control`. Every other claim has controls: the same
    contrast with an arm replaced by its declared control.
    """
    return tuple(
        _difference_claims(story, metric, left, right)
        for left, right in combinations(story.core, 2)
        for metric in (*COMPARED, ACCURACY)
    )


def _difference_claims(story: Story, metric: Metric, left: str, right: str) -> Claim:
    controlled = story.arm(left).control == right or story.arm(right).control == left
    section = "control" if controlled else "accuracy" if metric is ACCURACY else "pairs"
    controls = () if controlled else tuple(_matched_controls(story, left, right))
    return Forms(story).difference(metric, section, left, right, story.label(right), "", controls=controls)


def _matched_controls(story: Story, left: str, right: str) -> list[Control]:
    """The contrasts in which one arm is replaced by its matched control."""
    contrasts = []
    for arm, other, first in ((left, right, True), (right, left, False)):
        control = story.arm(arm).control
        if control is not None and control != other:
            words = f"{story.label(control)} in the place of {story.label(arm)}"
            pair = (control, other) if first else (other, control)
            contrasts.append(Control(words=words, kind="matched", left=pair[0], right=pair[1]))
    return contrasts
