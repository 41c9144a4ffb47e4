"""The statements that are tested, as a list: orderings of arXiv 2606.07082, then the matched control, then accuracy."""

from dataclasses import dataclass
from typing import Literal

from pipelines.report.arms import BY_KEY
from pipelines.report.metrics import (
    ACCURACY,
    LOW_MAGNITUDE,
    NORM,
    NSS,
    PRINCIPAL,
    ROTATION,
    SIMILARITY,
    STABLE_RANK,
    STABLE_RANK_CHANGE,
    STABLE_RANK_EARLY,
    UNCHANGED,
    VIEWS,
    Metric,
)

Kind = Literal["less", "greater", "at_most", "near", "differs"]
Section = Literal["paper", "control", "accuracy"]
SIGNS: dict[Kind, str] = {"less": "<", "greater": ">"}
CHANCE = 0.5
# The paper's SFT overlap lies 1.88 points above its chance level; 4 % of 0.5 is 2 points.
CHANCE_BAND = 0.04
FLAT_BAND = 0.20
NOT_EQUALITY = "Null means not distinguished by these seeds, which is not proof of equality."


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement about left - right, where right is another arm, a constant, or the same arm earlier."""

    text: str  # metric and statement; unique
    statement: str  # the relation in words, without the metric
    section: Section  # where the page tells it
    kind: Kind  # the relation of left to right
    metric: Metric  # what is compared
    left: str  # arm
    right: str | float  # arm, or a constant
    baseline: Metric | None = None  # the right-hand metric, where it differs from `metric`
    band: float = 0.0  # "near": half-width as a share of the right-hand mean
    paper: str  # what the paper reports
    note: str = ""  # how to read it

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (self.metric,) if self.baseline is None else (self.metric, self.baseline)

    def judge(self, low: float, high: float, right: float) -> bool | None:
        """True if [low, high] of left - right lies wholly on the claimed side, False if wholly off it, else None.

        "differs" is never False: an interval that contains 0 decides nothing.
        """
        if self.kind == "near":
            band = self.band * abs(right)
            return True if -band <= low and high <= band else False if low > band or high < -band else None
        if self.kind == "differs":
            return True if low > 0 or high < 0 else None
        if self.kind == "greater":
            low, high = -high, -low
        if high < 0 or (self.kind == "at_most" and high == 0):
            return True
        return False if low > 0 else None


def ordering(metric: Metric, kind: Kind, *pairs: tuple[str, str]) -> list[Claim]:
    return [
        Claim(
            text=f"{metric.words}: {BY_KEY[left].label} {SIGNS[kind]} {BY_KEY[right].label}",
            statement=f"{BY_KEY[left].label} {SIGNS[kind]} {BY_KEY[right].label}",
            section="paper",
            kind=kind,
            metric=metric,
            left=left,
            right=right,
            paper=f"{metric.reported(left)} / {metric.reported(right)}",
            note=metric.remark,
        )
        for left, right in pairs
    ]


def against_chance(metric: Metric, kind: Kind, arm: str, words: str, note: str, band: float = 0.0) -> Claim:
    return Claim(
        text=f"{metric.words}: {BY_KEY[arm].label} {words}",
        statement=f"{BY_KEY[arm].label} {words}",
        section="paper",
        kind=kind,
        metric=metric,
        left=arm,
        right=CHANCE,
        band=band,
        paper=metric.reported(arm) + ("" if "chance" in metric.reported(arm) else " (chance 30 %)"),
        note=f"{note} {metric.remark}",
    )


def trend(view: str, arm: str, kind: Kind, verb: str) -> Claim:
    flat = f"Flat: the 95 % interval lies within {100 * FLAT_BAND:g} % of the value at 5 %. " if kind == "near" else ""
    metric = STABLE_RANK[view]
    return Claim(
        text=f"stable rank, {view}: {BY_KEY[arm].label} {verb}",
        statement=f"{BY_KEY[arm].label} {verb}",
        section="paper",
        kind=kind,
        metric=metric,
        left=arm,
        right=arm,
        baseline=STABLE_RANK_EARLY[view],
        band=FLAT_BAND if kind == "near" else 0.0,
        paper=metric.reported(arm),
        note=flat + metric.remark,
    )


def difference(metric: Metric, section: Section, left: str, right: str, words: str, paper: str) -> Claim:
    return Claim(
        text=f"{BY_KEY[left].label} differs from {words}: {metric.words}",
        statement=f"{BY_KEY[left].label} differs from {words}",
        section=section,
        kind="differs",
        metric=metric,
        left=left,
        right=right,
        paper=paper,
        note=f"{NOT_EQUALITY} {metric.remark}".strip(),
    )


DOWN = (("sft", "opd"), ("opd", "rlvr"))
LEADS = (("opd", "sft"), ("opd", "rlvr"))
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
TRENDS: tuple[tuple[str, Kind, str], ...] = (
    ("sft", "greater", "rises"),
    ("opd", "near", "stays flat"),
    ("rlvr", "less", "contracts"),
)
_AT_CHANCE = f"At chance: the 95 % interval lies within {CHANCE_BAND * CHANCE:.2f} of {CHANCE}."
_NO_CONTROL = "no such control"

CLAIMS: tuple[Claim, ...] = (
    *ordering(UNCHANGED, "less", *DOWN),
    *(claim for group in (ROTATION, NSS, NORM) for m in group.values() for claim in ordering(m, "greater", *DOWN)),
    *ordering(LOW_MAGNITUDE, "less", *DOWN),
    against_chance(LOW_MAGNITUDE, "near", "sft", "at chance", _AT_CHANCE, CHANCE_BAND),
    *(
        against_chance(PRINCIPAL, "at_most", arm, "at most chance", f"Chance is alpha = {CHANCE}.")
        for arm in ("opd", "rlvr")
    ),
    *(trend(view, arm, kind, verb) for view in VIEWS for arm, kind, verb in TRENDS),
    *(claim for metric in SIMILARITY.values() for claim in ordering(metric, "greater", *LEADS)),
    *(
        difference(metric, "control", "opd", "sft-matched", "its matched offline control", _NO_CONTROL)
        for metric in CONTROLLED
    ),
    difference(ACCURACY, "accuracy", "opd", "rlvr", "RLVR", "not compared at equal steps"),
    difference(ACCURACY, "accuracy", "opd", "sft-matched", "its matched offline control", _NO_CONTROL),
    difference(ACCURACY, "accuracy", "rlvr", "sft-matched", "the matched offline control", _NO_CONTROL),
)
BY_TEXT = {claim.text: claim for claim in CLAIMS}
