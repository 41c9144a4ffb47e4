"""The statements that are tested: the paper's (arXiv 2606.07082), OPD beside its matched control, accuracy, our own.

`published.py`, `controlled.py` and `ours.py` list them, `chance.py` has a form of the paper's own. A claim whose arms
are absent is left out of the verdicts.
"""

from pipelines.paper.claims.controlled import ACCURACIES, MATCHED
from pipelines.paper.claims.ours import CONFINED, DISTURBED, LEAKS, NORMED, TWINS, VARIED
from pipelines.paper.claims.published import ORDERINGS, OTHERS
from pipelines.studies.claim import Claim

__all__ = ["CLAIMS", "NORMED"]

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
