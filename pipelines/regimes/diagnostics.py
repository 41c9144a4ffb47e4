"""Diagnostics that decide the regime: one number per run, view and step, the mean over the decoder's projections.

A positive quantity whose level follows the size of the update is compared by its logarithm, so that the spread over
seeds means the same for an arm with a large value as for one with a small value. A diagnostic is `sized` where its
level follows the shapes of the matrices (16 directions of 128 are not 16 of 4096): it cannot be compared with a
reference of other shapes. Stable and effective rank are taken relative to noise of the same shape instead, NSS to
||W_0||.
"""

from dataclasses import dataclass
from typing import Literal

from pipelines.studies.pairs import SHARES

K = 16  # directions compared: the cut that every study measures
View = Literal["bf16", "master"]
VIEWS: tuple[View, ...] = ("bf16", "master")


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """One column of one table, averaged over matrices. It does not depend on any other run."""

    name: str  # as in the table `regime`
    words: str  # for readers
    table: str
    column: str
    where: tuple[tuple[str, str | int | float], ...] = ()  # column equals value
    over: str | None = None  # divided by this column, matrix by matrix
    weight: str | None = None  # column to weight matrices by
    error: str | None = None  # column with the value's error bound; None: one weight of all counts
    log: bool = False  # compared by its logarithm
    sized: bool = False  # comparable between equal shapes only
    views: tuple[View, ...] = VIEWS
    share: float | None = None  # of the steps up to the budget, for similarities between two steps


def _locking_diagnostic(share: float) -> Diagnostic:
    percent = round(100 * share)
    return Diagnostic(
        name=f"sim16_{percent}",
        words=f"Sim_{K} to there at {percent} % of the steps",
        table="locking",
        column="similarity",
        where=(("side", "input"), ("k", K)),
        error="error",
        sized=True,
        share=share,
    )


DIAGNOSTICS = (
    Diagnostic(
        name="unchanged",
        words="unchanged weights",
        table="update_support",
        column="unchanged",
        weight="numel",
        views=("bf16",),  # of fp32 masters nearly every weight changes
    ),
    Diagnostic(
        name="rotation",
        words=f"rotation, input side, k {K} (deg)",
        table="rotation",
        column="mean_deg",
        where=(("side", "input"), ("k", K)),
        error="error_deg",
        log=True,
        sized=True,
    ),
    Diagnostic(name="nss", words="spectral drift (NSS)", table="spectral_drift", column="nss", error="error", log=True),
    Diagnostic(
        name="stable_rank",
        words="stable rank over noise's",
        table="update_norm",
        column="stable_rank",
        over="iid_stable_rank",
        error="stable_rank_error",
        log=True,
    ),
    Diagnostic(
        name="effective_rank",
        words="effective rank over the shuffled update's",
        table="update_spectrum",
        column="effective_rank",
        over="shuffled",
        error="effective_rank_error",
        log=True,
    ),
    Diagnostic(
        name="hill",
        words=f"Hill index, k {K}",
        table="hill",
        column="hill",
        where=(("k", K),),
        error="error",
        log=True,
        sized=True,
    ),
    Diagnostic(
        name="low_magnitude",
        words="low-magnitude overlap, alpha 0.5",
        table="localization",
        column="overlap",
        where=(("mask", "low_magnitude"), ("alpha", 0.5)),
        views=("bf16",),
    ),
    Diagnostic(
        name="principal",
        words="principal-mask overlap, alpha 0.5",
        table="localization",
        column="overlap",
        where=(("mask", "principal"), ("alpha", 0.5)),
        views=("bf16",),
    ),
    *(_locking_diagnostic(share) for share in SHARES),
)
BY_NAME = {diagnostic.name: diagnostic for diagnostic in DIAGNOSTICS}
