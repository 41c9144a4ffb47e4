"""The forms that statements recur in."""

from pipelines.report.arms import label
from pipelines.report.claims.claim import SIGNS, Claim, Control, Kind, Section
from pipelines.report.metrics import STABLE_RANK, STABLE_RANK_EARLY, Metric

CHANCE = 0.5
# The paper's SFT overlap lies 1.88 points above its chance level; 4 % of 0.5 is 2 points.
CHANCE_BAND = 0.04
# The paper's band of OPD, 18 to 28, is +- 22 % about its middle.
FLAT_BAND = 0.20
NOT_EQUALITY = "Null means not distinguished by these seeds, which is not proof of equality."
NO_CONTROL = "no such control"


def ordering(
    metric: Metric,
    kind: Kind,
    left: str,
    right: str,
    *,
    like: tuple[str, str] | None = None,
    section: Section = "paper",
    suite: str = "core",
    controls: tuple[Control, ...] = (),
    paper: str = "",
) -> Claim:
    """left < right, or left > right.

    like: the arms of the paper whose values stand beside it, by default the same; paper: other words in their place.
    """
    one, other = like or (left, right)
    both = f"{metric.reported(one)} / {metric.reported(other)}"
    reported = paper or (both if like is None else f"{both} ({label(one)}, {label(other)})")
    statement = f"{label(left)} {SIGNS[kind]} {label(right)}"
    return Claim(
        text=f"{metric.words}: {statement}",
        statement=statement,
        section=section,
        suite=suite,
        kind=kind,
        metric=metric,
        left=left,
        right=right,
        controls=controls,
        paper=reported,
        note=metric.remark,
    )


def against_chance(
    metric: Metric, kind: Kind, arm: str, words: str, note: str, band: float = 0.0, controls: tuple[Control, ...] = ()
) -> Claim:
    return Claim(
        text=f"{metric.words}: {label(arm)} {words}",
        statement=f"{label(arm)} {words}",
        section="paper",
        kind=kind,
        metric=metric,
        left=arm,
        right=CHANCE,
        band=band,
        controls=controls,
        paper=metric.reported(arm) + ("" if "chance" in metric.reported(arm) else " (chance 30 %)"),
        note=f"{note} {metric.remark}",
    )


def trend(view: str, arm: str, kind: Kind, verb: str, control: Control) -> Claim:
    """The stable rank at the end beside that at 5 % of the run."""
    flat = f"Flat: the 95 % interval lies within {100 * FLAT_BAND:g} % of the value at 5 %. " if kind == "near" else ""
    metric = STABLE_RANK[view]
    return Claim(
        text=f"stable rank, {view}: {label(arm)} {verb}",
        statement=f"{label(arm)} {verb}",
        section="paper",
        kind=kind,
        metric=metric,
        left=arm,
        right=arm,
        baseline=STABLE_RANK_EARLY[view],
        band=FLAT_BAND if kind == "near" else 0.0,
        controls=(control,),
        paper=metric.reported(arm),
        note=flat + metric.remark,
    )


def difference(
    metric: Metric, section: Section, left: str, right: str, words: str, paper: str, suite: str = "core"
) -> Claim:
    return Claim(
        text=f"{label(left)} differs from {words}: {metric.words}",
        statement=f"{label(left)} differs from {words}",
        section=section,
        suite=suite,
        kind="differs",
        metric=metric,
        left=left,
        right=right,
        paper=paper,
        note=f"{NOT_EQUALITY} {metric.remark}".strip(),
    )


def equivalence(
    metric: Metric,
    left: str,
    right: str,
    *,
    suite: str,
    section: Section = "ours",
    departs: bool = False,
    band: float = FLAT_BAND,
    margin: float = 0.0,
    controls: tuple[Control, ...] = (),
    paper: str = NO_CONTROL,
    note: str = "",
) -> Claim:
    """left is within a declared band about right or, if it `departs`, beyond it."""
    wide = f"{100 * margin:g} points" if margin else f"{100 * band:g} %"
    statement = f"{label(left)} {'departs from' if departs else 'follows'} {label(right)}"
    where = "beyond" if departs else "within"
    return Claim(
        text=f"{metric.words}: {statement}",
        statement=statement,
        section=section,
        suite=suite,
        kind="far" if departs else "near",
        metric=metric,
        left=left,
        right=right,
        band=0.0 if margin else band,
        margin=margin,
        controls=controls,
        paper=paper,
        note=" ".join(filter(None, (f"The 95 % interval lies {where} {wide} of {label(right)}.", note, metric.remark))),
    )


def random_basis(left: str, right: str) -> Control:
    """Beside a claim that a confined arm keeps up with `right`: `left`, confined to random directions, does not."""
    return Control(words="a random basis in place of its own", kind="placebo", left=left, right=right)
