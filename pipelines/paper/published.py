"""Numbers that arXiv 2606.07082 reports for its runs of 4B to 14B parameters, by item, in the units of our axes.

How each number is known: `stated` in its text, tables or figures; `source`, a comment in its public LaTeX that the
compiled paper does not show; `axis`, read off the ticks of a figure, which bounds a value and does not give it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.paper.arms import label


@dataclass(frozen=True, kw_only=True)
class Published:
    """One number or range. `low` equals `high` where one number is given."""

    arm: str  # key of the arm, or the name of what has no arm here
    quantity: str  # the axis it belongs to
    low: float
    high: float
    words: str  # as a reader should read it
    known: Literal["stated", "source", "axis"]
    ends: Literal["low", "high"] | None = None  # of a range that a run passes through, where it arrives

    @property
    def description(self) -> str:
        """The value as text, with its origin unless the paper states it."""
        hows = {"stated": "", "source": " (LaTeX source)", "axis": " (axis ticks)"}
        return self.words + hows[self.known]


def in_words(value: Published) -> str:
    """The tooltip of a published value."""
    return f"{label(value.arm)}: {value.description}"


UNCHANGED, ANGLE, LARGEST_ANGLE, NSS = "unchanged weights", "principal angle", "largest angle", "spectral drift (NSS)"
DENSITY, PRINCIPAL, LOW_MAGNITUDE = "changed weights", "principal-mask overlap", "low-magnitude overlap"
STABLE_RANK, NORM, HILL, SIMILARITY, ACCURACY = "stable rank", "Frobenius norm", "Hill index", "Sim_16", "accuracy"


def _single(quantity: str, unit: str, **values: float) -> tuple[Published, ...]:
    return tuple(
        Published(arm=arm, quantity=quantity, low=value, high=value, words=f"{value} {unit}".strip(), known="stated")
        for arm, value in values.items()
    )


TABLE1 = (
    *_single(UNCHANGED, "%", sft=8.1, opd=51.6, rlvr=77.2),
    *(
        Published(arm=pair, quantity=UNCHANGED, low=value, high=value, words=f"{value} %", known="stated")
        for pair, value in (
            ("OPD 4B from 8B", 50.3),
            ("OPD 4B from 14B", 51.1),
            ("OPD 4B from 32B", 51.7),
            ("OPD 14B from 32B", 56.6),
            ("OPD 8B from 32B, code", 57.1),
            ("OPD 8B from a mixture of experts", 48.6),
            ("SFT: Klear-Reasoner-8B-SFT", 0.6),
            ("SFT: UniReason-14B-think-SFT", 18.8),
            ("RLVR: Klear-Reasoner-8B", 69.9),
            ("RLVR: GT-Qwen3-8B-Base", 79.0),
            ("RLVR: Polaris-4B-Preview", 79.9),
        )
    ),
)
FIGURE2 = (
    Published(
        arm="sft", quantity=ANGLE, low=10, high=10, words="above 10 deg, axis to 10, in one layer", known="stated"
    ),
    Published(arm="opd", quantity=ANGLE, low=1, high=1, words="about 1 deg, axis to 1.0, in one layer", known="stated"),
    Published(
        arm="rlvr", quantity=ANGLE, low=0.4, high=0.5, words="below 0.5 deg, axis to 0.4, in one layer", known="stated"
    ),
    Published(arm="sft", quantity=LARGEST_ANGLE, low=90, high=90, words="near 90 deg, axis to 100", known="axis"),
    Published(arm="opd", quantity=LARGEST_ANGLE, low=30, high=30, words="up to 30 deg", known="axis"),
    Published(arm="rlvr", quantity=LARGEST_ANGLE, low=5, high=6, words="up to 5 to 6 deg", known="axis"),
    Published(arm="sft", quantity=NSS, low=3e-3, high=3.5e-3, words="3.0e-3 to 3.5e-3", known="axis"),
    Published(arm="opd", quantity=NSS, low=1e-4, high=2e-4, words="1.0e-4 to 2.0e-4", known="axis"),
    Published(arm="rlvr", quantity=NSS, low=1e-5, high=2e-5, words="1e-5 to 2e-5", known="axis"),
)
FIGURE3 = (
    *_single(DENSITY, "%", sft=92.73, opd=46.28, rlvr=27.76),
    *_single(PRINCIPAL, "%", sft=29.66, opd=27.31, rlvr=26.65),
    *_single(LOW_MAGNITUDE, "%", sft=31.88, opd=53.59, rlvr=73.48),
)
FIGURE4 = (
    Published(arm="sft", quantity=STABLE_RANK, low=20, high=75, words="rises, 20 to 75", known="axis", ends="high"),
    Published(arm="opd", quantity=STABLE_RANK, low=18, high=28, words="stays in 18 to 28", known="axis"),
    Published(
        arm="rlvr", quantity=STABLE_RANK, low=18, high=28, words="falls to OPD's 18 to 28", known="axis", ends="low"
    ),
    Published(arm="sft", quantity=NORM, low=4.701, high=4.701, words="4.701 at the end", known="source"),
    Published(arm="opd", quantity=NORM, low=0.452, high=0.452, words="0.452 at the end", known="source"),
    Published(arm="rlvr", quantity=NORM, low=0.168, high=0.168, words="0.168 at the end", known="source"),
    Published(
        arm="sft", quantity=HILL, low=2.0, high=4.5, words="rises sharply within 2.0 to 4.5", known="axis", ends="high"
    ),
    Published(arm="opd", quantity=HILL, low=2.34, high=2.93, words="2.34 to 2.93", known="source", ends="high"),
    Published(arm="rlvr", quantity=HILL, low=2.0, high=4.5, words="falls within 2.0 to 4.5", known="axis", ends="low"),
)
FIGURE5 = tuple(
    Published(arm=arm, quantity=SIMILARITY, low=0.4, high=1.0, words=words, known="axis", ends="high")
    for arm, words in (
        ("sft", "starts lower, within 0.4 to 1.0"),
        ("opd", "high from the first checkpoint (21 % of the run), within 0.4 to 1.0"),
        ("rlvr", "starts lower, within 0.4 to 1.0"),
    )
)
# AIME 2024. The arms are those that take the paper's part here; SFT's 45.6 and 55.5 are no multiples of 1/240.
FIGURE6 = tuple(
    Published(arm=arm, quantity=ACCURACY, low=value, high=value, words=f"{value} %", known="source")
    for arm, value in (("opd-at20", 63.3), ("opd-at20-own16", 64.2), ("sft-at20", 55.5), ("sft-at20-own16", 45.6))
)
BENCHMARKS = ("AIME 2024", "AMC 2023", "AIME 2025", "Minerva", "Beyond AIME")
FIGURE8 = tuple(
    Published(arm=arm, quantity=benchmark, low=low, high=high, words=f"{low} to {high} %", known="axis")
    for arm, ranges in (
        ("opd", ((58, 66), (86, 94), (44, 52), (44, 49), (28, 34))),
        ("sft", ((35, 60), (60, 90), (25, 40), (38, 48), (4, 18))),
    )
    for benchmark, (low, high) in zip(BENCHMARKS, ranges, strict=True)
)
FIGURE7 = (
    Published(arm="opd", quantity=STABLE_RANK, low=18, high=29, words="18 to 28 or 29", known="axis"),
    Published(arm="opd-teacher-rollouts", quantity=STABLE_RANK, low=17.5, high=30, words="17.5 to 30", known="axis"),
    *(
        Published(arm=arm, quantity=STABLE_RANK, low=18, high=26, words="18 to 26", known="axis")
        for arm in ("opd-mix-25", "opd-mix-05", "opd-mix-01")
    ),
)
MIXES = ("opd-mix-75", "opd-mix-50", "opd-mix-25", "opd-mix-05", "opd-mix-01")
FIGURE9 = (
    Published(arm="opd", quantity=NORM, low=0.20, high=0.45, words="0.20 to 0.45", known="axis", ends="high"),
    Published(arm="opd-teacher-rollouts", quantity=NORM, low=0.20, high=0.50, words="up to 0.50", known="axis"),
    *(
        Published(arm=arm, quantity=NORM, low=0.20, high=0.45, words="0.20 to 0.45", known="axis", ends="high")
        for arm in MIXES
    ),
    Published(arm="opd", quantity=HILL, low=2.3, high=2.9, words="2.3 to 2.9", known="axis"),
    *(Published(arm=arm, quantity=HILL, low=2.4, high=3.0, words="2.4 to 3.0", known="axis") for arm in MIXES),
)


def find_published(published: Sequence[Published], quantity: str) -> list[Published]:
    """The published values of one quantity."""
    return [value for value in published if value.quantity == quantity]
