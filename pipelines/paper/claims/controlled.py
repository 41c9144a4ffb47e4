"""OPD beside its matched offline control in every metric, and the final accuracies."""

from pipelines.paper.claims.chance import FORMS
from pipelines.statistics.claims import COMPARED
from pipelines.statistics.forms import NO_CONTROL
from pipelines.statistics.metrics import ACCURACY
from pipelines.studies.claim import Claim

MATCHED: tuple[Claim, ...] = tuple(
    FORMS.difference(metric, "control", "opd", "sft-matched", "its matched offline control", NO_CONTROL)
    for metric in COMPARED
)
ACCURACIES: tuple[Claim, ...] = (
    FORMS.difference(ACCURACY, "accuracy", "opd", "rlvr", "RLVR", "not compared at equal steps"),
    FORMS.difference(ACCURACY, "accuracy", "opd", "sft-matched", "its matched offline control", NO_CONTROL),
    FORMS.difference(ACCURACY, "accuracy", "rlvr", "sft-matched", "the matched offline control", NO_CONTROL),
)
