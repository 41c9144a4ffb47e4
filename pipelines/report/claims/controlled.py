"""OPD beside its matched offline control in every metric, and the final accuracies."""

from pipelines.report.claims.claim import Claim
from pipelines.report.claims.forms import NO_CONTROL, difference
from pipelines.report.metrics import (
    ACCURACY,
    LOW_MAGNITUDE,
    NORM,
    NSS,
    PRINCIPAL,
    ROTATION,
    SIMILARITY,
    STABLE_RANK_CHANGE,
    UNCHANGED,
)

CONTROLLED = (
    UNCHANGED,
    *ROTATION.values(),
    *NSS.values(),
    *NORM.values(),
    LOW_MAGNITUDE,
    PRINCIPAL,
    *STABLE_RANK_CHANGE.values(),
    *SIMILARITY.values(),
)
MATCHED: tuple[Claim, ...] = tuple(
    difference(metric, "control", "opd", "sft-matched", "its matched offline control", NO_CONTROL)
    for metric in CONTROLLED
)
ACCURACIES: tuple[Claim, ...] = (
    difference(ACCURACY, "accuracy", "opd", "rlvr", "RLVR", "not compared at equal steps"),
    difference(ACCURACY, "accuracy", "opd", "sft-matched", "its matched offline control", NO_CONTROL),
    difference(ACCURACY, "accuracy", "rlvr", "sft-matched", "the matched offline control", NO_CONTROL),
)
