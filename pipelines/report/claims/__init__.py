"""The statements that are tested: the paper's (arXiv 2606.07082), OPD beside its matched control, accuracy, our own.

`claim.py` says what a statement and its control are, `forms.py` has the kinds that recur, and each other file lists
statements. A claim whose arms are absent is left out of the verdicts.
"""

from pipelines.report.claims.claim import Claim, Control, Kind, Reading, Section
from pipelines.report.claims.controlled import ACCURACIES, MATCHED
from pipelines.report.claims.ours import CONFINED, DISTURBED, LEAKS, NORMED, TWINS, VARIED
from pipelines.report.claims.paper import ORDERINGS, OTHERS

__all__ = ["BY_TEXT", "CLAIMS", "NORMED", "Claim", "Control", "Kind", "Reading", "Section"]

CLAIMS: tuple[Claim, ...] = (
    *ORDERINGS,
    *MATCHED,
    *ACCURACIES,
    *OTHERS,
    *VARIED,
    *CONFINED,
    *LEAKS,
    *TWINS,
    *NORMED,
    *DISTURBED,
)
BY_TEXT = {claim.text: claim for claim in CLAIMS}
