"""The paper's claims about SFT, OPD and RLVR and their variants."""

from pipelines.paper.claims.chance import CHANCE, CHANCE_BAND, FORMS, against_chance
from pipelines.paper.suites import BEGIN, SOON, continued_key
from pipelines.statistics.forms import random_basis
from pipelines.statistics.metrics import (
    ACCURACY,
    LOW_MAGNITUDE,
    NORM,
    NSS,
    PRINCIPAL,
    ROTATION,
    SIMILARITY,
    STABLE_RANK,
    UNCHANGED,
    VIEWS,
    Metric,
)
from pipelines.studies.claim import Claim, Control, Kind

_OFFLINE = "sft-matched in SFT's place: OPD's start, learning rate, steps and batch"
_BATCH = "opd-8x8 in OPD's place: RLVR's batch"
_NOISE = "rlvr-32x8 in RLVR's place: four times its batch"
# Left and right as in the claim, so that the effect of the control has the same sign if it shows the same.
CONTROLS: dict[tuple[str, str], tuple[Control, ...]] = {
    ("sft", "opd"): (Control(words=_OFFLINE, kind="matched", left="sft-matched", right="opd"),),
    ("opd", "sft"): (Control(words=_OFFLINE, kind="matched", left="opd", right="sft-matched"),),
    ("opd", "rlvr"): (
        Control(words=_BATCH, kind="matched", left="opd-8x8", right="rlvr"),
        Control(words=_NOISE, kind="matched", left="opd", right="rlvr-32x8"),
    ),
}
DOWN = (("sft", "opd"), ("opd", "rlvr"))
LEADS = (("opd", "sft"), ("opd", "rlvr"))
TRENDS: tuple[tuple[str, Kind, str, Control], ...] = (
    (
        "sft",
        "greater",
        "rises",
        Control(
            words="SFT with OPD's start, learning rate, steps and batch",
            kind="matched",
            left="sft-matched",
            right="sft-matched",
        ),
    ),
    (
        "opd",
        "near",
        "stays flat",
        Control(words="the offline twin sft-matched", kind="placebo", left="sft-matched", right="sft-matched"),
    ),
    (
        "rlvr",
        "less",
        "contracts",
        Control(words="RLVR on four times its batch", kind="matched", left="rlvr-32x8", right="rlvr-32x8"),
    ),
)
_AT_CHANCE = f"At chance: the 95 % interval lies within {CHANCE_BAND * CHANCE:.2f} of {CHANCE}."
_SFT_CHANCE = Control(
    words="SFT with OPD's start, learning rate, steps and batch", kind="matched", left="sft-matched", right=CHANCE
)
_OFFLINE_CHANCE = Control(words="the offline twin sft-matched", kind="placebo", left="sft-matched", right=CHANCE)


def _orderings(kind: Kind, pairs: tuple[tuple[str, str], ...], *metrics: Metric) -> list[Claim]:
    return [FORMS.ordering(metric, kind, *pair, controls=CONTROLS[pair]) for metric in metrics for pair in pairs]


ORDERINGS: tuple[Claim, ...] = (
    *_orderings("less", DOWN, UNCHANGED),
    *_orderings("greater", DOWN, *ROTATION.values(), *NSS.values(), *NORM.values()),
    *_orderings("less", DOWN, LOW_MAGNITUDE),
    against_chance(LOW_MAGNITUDE, "near", "sft", "at chance", _AT_CHANCE, CHANCE_BAND, (_SFT_CHANCE,)),
    *(
        against_chance(PRINCIPAL, "at_most", arm, "at most chance", f"Chance is alpha = {CHANCE}.", controls=controls)
        for arm, controls in (("opd", (_OFFLINE_CHANCE,)), ("rlvr", ()))
    ),
    *(FORMS.trend(view, *told) for view in VIEWS for told in TRENDS),
    *_orderings("greater", LEADS, *SIMILARITY.values()),
)

# What confines an arm is said to change its accuracy: by half of the 9.9 points that the paper's SFT loses.
MARGIN = 0.05
_LITERAL = "The gradient alone is confined, as in the paper."


def _subspace(begin: int, *controls: Control) -> tuple[Claim, Claim]:
    """Of OPD and SFT confined to their own first 16 directions from step `begin` on; `controls` are of SFT's."""

    def arm(parent: str, *words: str) -> str:
        return continued_key(parent, *words, begin=begin)

    loses = f"{arm('sft', 'own16')} loses more than {100 * MARGIN:g} points on {arm('sft')}"
    return (
        FORMS.equivalence(
            ACCURACY,
            arm("opd", "own16"),
            arm("opd"),
            suite="interventions",
            section="paper",
            margin=MARGIN,
            controls=(random_basis(arm("opd", "random16"), arm("opd")),),
            paper="64.2 against 63.3, AIME 2024 (in its LaTeX source, commented out)",
            note=_LITERAL,
        ),
        Claim(
            text=f"{ACCURACY.words}: {loses}",
            statement=loses,
            section="paper",
            suite="interventions",
            kind="less",
            metric=ACCURACY,
            left=arm("sft", "own16"),
            right=arm("sft"),
            margin=MARGIN,
            controls=controls,
            paper="45.6 against 55.5, AIME 2024 (in its LaTeX source, commented out)",
            note=f"{_LITERAL} {ACCURACY.remark}",
        ),
    )


_MATCHED = Control(
    words="SFT with OPD's start, learning rate, steps and batch",
    kind="matched",
    left=continued_key("sft-matched", "own16"),
    right=continued_key("sft-matched"),
)
SUBSPACE: tuple[Claim, ...] = (*_subspace(BEGIN, _MATCHED), *_subspace(SOON))
_OTHER_OBJECTIVE = {
    right: Control(words="RLVR in its place", kind="placebo", left="rlvr", right=right) for right in ("opd", "opd-pg")
}
_SHAPE = Control(words="OPD on RLVR's batch, nothing mixed in", kind="placebo", left="opd-8x8", right="opd")
_CURVES = "At the end of training; the paper compares curves."
_SAME_RANK = {
    **dict.fromkeys(("opd-top50", "opd-random50", "opd-top25", "opd-random25"), "all four follow OPD's curve"),
    "opd-teacher-rollouts": "follows OPD's curve",
}
SAME_RANK: tuple[Claim, ...] = tuple(
    FORMS.equivalence(
        STABLE_RANK[view],
        arm,
        "opd",
        suite="objectives",
        section="paper",
        controls=(_OTHER_OBJECTIVE["opd"],),
        paper=paper,
        note=_CURVES,
    )
    for arm, paper in _SAME_RANK.items()
    for view in VIEWS
)
MIXTURES: tuple[Claim, ...] = tuple(
    FORMS.equivalence(
        STABLE_RANK[view],
        f"opd-mix-{share}",
        "opd-pg",
        suite="objectives",
        section="paper",
        departs=departs,
        controls=(_SHAPE if departs else _OTHER_OBJECTIVE["opd-pg"],),
        paper="departs, from 0.05 to 0.25 on" if departs else "follows OPD's curve",
        note=_CURVES + " opd-pg has another batch (64 x 1) and normaliser.",
    )
    for share, departs in (("75", False), ("50", False), ("05", True), ("01", True))
    for view in VIEWS
)
OTHERS: tuple[Claim, ...] = (*SAME_RANK, *MIXTURES, *SUBSPACE)
