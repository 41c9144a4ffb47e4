"""The claims of a study that brings none: every pair of its core arms in every metric, beside the declared control."""

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

    An arm beside its own declared control stands in the section `control`. Of the other pairs, the control of either
    arm takes its place in the contrast that is read beside the claim.
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
    """The contrast with an arm's matched control in its place, for either arm that declares one."""
    contrasts = []
    for arm, other, first in ((left, right, True), (right, left, False)):
        control = story.arm(arm).control
        if control is not None and control != other:
            words = f"{story.label(control)} in the place of {story.label(arm)}"
            pair = (control, other) if first else (other, control)
            contrasts.append(Control(words=words, kind="matched", left=pair[0], right=pair[1]))
    return contrasts
