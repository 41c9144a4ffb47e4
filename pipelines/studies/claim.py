"""A claim about two arms, the rule by which an interval decides it, and its controls."""

from dataclasses import dataclass
from typing import Literal

from pipelines.studies.metric import Metric

Kind = Literal["less", "greater", "at_most", "near", "far", "differs"]
Section = Literal["paper", "control", "pairs", "accuracy", "ours"]
Reading = Literal["remains", "shrinks", "not seen", "turns", "the same", "differs"]
SIGNS: dict[Kind, str] = {"less": "<", "greater": ">"}
Ends = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Control:
    """Another contrast in the same metric, to interpret a claim that holds.

    matched: the claim's contrast with a confound removed; a remaining effect supports the claim.
    placebo: a contrast without the claimed cause; if the claim holds there too, the cause is not shown.
    """

    words: str  # what the contrast is
    kind: Literal["matched", "placebo"]
    left: str  # arm
    right: str | float  # arm or constant


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement about left - right, where right is another arm, a constant, or the same arm earlier."""

    text: str  # metric and statement; unique
    statement: str  # the relation in words, without the metric
    section: Section = "ours"  # whose: a source's (paper), an arm beside its control, any pair, accuracies, or ours
    suite: str = "core"  # the suite that its arms, apart from core's, are of; where the page tells it
    kind: Kind  # the relation of left to right
    metric: Metric  # what is compared
    left: str  # arm
    right: str | float  # arm, or a constant
    baseline: Metric | None = None  # the right-hand metric, where it differs from `metric`
    band: float = 0.0  # "near", "far": half-width as a share of the right-hand mean
    margin: float = 0.0  # in the metric's unit: added to the band; "less", "greater": by more than this
    controls: tuple[Control, ...] = ()  # in order of preference: the first whose arms exist is read
    constant: str = ""  # what a constant on the right is called, such as chance
    paper: str = ""  # what the story's source reports
    note: str = ""  # how to read it

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (self.metric,) if self.baseline is None else (self.metric, self.baseline)

    def judge(self, low: float, high: float, right: float) -> bool | None:
        """True if [low, high] of left - right lies entirely on the claimed side, False if entirely outside, else None.

        "differs" is never False: an interval that contains 0 decides nothing.
        """
        if self.kind in ("near", "far"):
            band = self.band * abs(right) + self.margin
            near = True if -band <= low and high <= band else False if low > band or high < -band else None
            return near if self.kind == "near" or near is None else not near
        if self.kind == "differs":
            return True if low > 0 or high < 0 else None
        if self.kind == "greater":
            low, high = -high, -low
        if high < -self.margin or (self.kind == "at_most" and high == 0):
            return True
        return False if low > -self.margin else None

    def read(self, control: Control, own: Ends, other: Ends, right: float) -> Reading:
        """The reading of a control with interval `other` for this claim, which holds with interval `own`.

        right: the mean of the control's right-hand side.

        matched  remains (it holds there too), shrinks (it holds, with an interval entirely nearer to 0), turns (it
        fails
                 there), not seen (undecided there)
        placebo  the same (it holds there too and the intervals overlap; of "near", it holds there too), else differs
        """
        control_holds = self.judge(*other, right)
        overlap = own[0] <= other[1] and other[0] <= own[1]
        if control.kind == "placebo":
            return "the same" if control_holds and (overlap or self.kind == "near") else "differs"
        if control_holds is None:
            return "not seen"
        if not control_holds:
            return "turns"
        nearer = not overlap and abs(sum(other)) < abs(sum(own)) and self.kind != "near"
        return "shrinks" if nearer else "remains"
