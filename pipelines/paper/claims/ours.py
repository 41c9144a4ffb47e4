"""Our own claims: accuracy of confined arms, and the paper's orderings with one setting matched at a time."""

from pipelines.paper.claims.chance import FORMS
from pipelines.paper.claims.published import MARGIN
from pipelines.paper.suites import MODES, PARENTS, SOON, SWEPT, continued_key
from pipelines.statistics.claims import COMPARED
from pipelines.statistics.forms import NO_CONTROL, random_basis
from pipelines.statistics.metrics import (
    ACCURACY,
    LEAKED,
    NORM,
    NSS,
    ROTATION,
    SIMILARITY,
    STABLE_RANK,
    UNCHANGED,
    VIEWS,
    Metric,
)
from pipelines.studies.claim import Claim, Control, Kind

VARIED: tuple[Claim, ...] = (
    *(
        FORMS.equivalence(STABLE_RANK[view], "opd-stale16", "opd", suite="objectives", paper="not tested")
        for view in VIEWS
    ),
    *(
        FORMS.difference(metric, "ours", "opd-pg", "opd", "the exact reverse KL", "not tested", "objectives")
        for metric in (UNCHANGED, *STABLE_RANK.values(), ACCURACY)
    ),
)


def order_accuracy(kind: Kind, left: str, right: str) -> Claim:
    """left ends with more (or less) accuracy than right."""
    return FORMS.ordering(ACCURACY, kind, left, right, section="ours", suite="interventions", paper=NO_CONTROL)


def same_accuracy(left: str, right: str, *, paper: str = NO_CONTROL, controls: tuple[Control, ...] = ()) -> Claim:
    return FORMS.equivalence(
        ACCURACY, left, right, suite="interventions", margin=MARGIN, paper=paper, controls=controls
    )


CONFINED: tuple[Claim, ...] = (
    *(
        same_accuracy(
            continued_key(arm, "own16"),
            continued_key(arm),
            controls=(random_basis(continued_key(arm, "random16"), continued_key(arm)),),
        )
        for arm in ("sft-matched", "rlvr")
    ),
    *(
        order_accuracy("greater", continued_key(arm, "own16"), continued_key(arm, other))
        for arm, borrowed in PARENTS.items()
        for other in ("random16", "start16", f"{borrowed}16")
    ),
    *(
        order_accuracy("greater", *(continued_key(arm, basis, begin=SOON) for basis in ("own16", "random16")))
        for arm in SWEPT
    ),
    *(order_accuracy("less", continued_key(arm, "own4"), continued_key(arm, "own16")) for arm in SWEPT),
    *(same_accuracy(continued_key(arm, "own64"), continued_key(arm, "own16")) for arm in SWEPT),
    *(
        same_accuracy(continued_key(arm, "own16", begin=begin), continued_key(arm, "own16"))
        for arm in SWEPT
        for begin in (5, 50)
    ),
    *(order_accuracy("less", continued_key(arm, "own16", "both"), continued_key(arm, "own16")) for arm in SWEPT),
    *(same_accuracy(continued_key(arm, "own16", mode), continued_key(arm, "own16")) for arm in SWEPT for mode in MODES),
)
# Adam's element-wise scaling leaks out of the subspace that its gradient is confined to; the other modes do not leak.
LEAKS: tuple[Claim, ...] = tuple(
    FORMS.ordering(
        LEAKED,
        "greater",
        continued_key(arm, "own16"),
        continued_key(arm, "own16", mode),
        section="ours",
        suite="interventions",
        paper="not reported",
    )
    for arm in SWEPT
    for mode in MODES
)
# Disturbed runs against the sham run, whose guard trips without an action.
DISTURBED: tuple[Claim, ...] = (
    FORMS.equivalence(
        ACCURACY, "rlvr-noise-sham", "rlvr", suite="steering", margin=MARGIN, note="Equal if watching does nothing."
    ),
    *(
        FORMS.difference(metric, "ours", arm, "rlvr-noise-sham", "the sham", NO_CONTROL, "steering")
        for arm in ("rlvr-noise-iso", "rlvr-noise-off", "rlvr-noise-iso3", "rlvr-noise-off3")
        for metric in (ACCURACY, STABLE_RANK["master"], SIMILARITY["master", 25])
    ),
)
# The paper's orderings, with one confound of its runs removed at a time.
SHORT: dict[Metric, Kind] = {
    UNCHANGED: "less",
    NORM["bf16"]: "greater",
    ROTATION["bf16"]: "greater",
    NSS["bf16"]: "greater",
}
_TWINS = (
    ("sft-slow", "opd", ("sft", "opd")),
    ("sft", "opd-fast", ("sft", "opd")),
    ("opd-8x8", "rlvr", ("opd", "rlvr")),
    ("opd", "rlvr-32x8", ("opd", "rlvr")),
)
TWINS: tuple[Claim, ...] = (
    *(
        FORMS.ordering(metric, kind, left, right, like=like, section="ours", suite="controls")
        for left, right, like in _TWINS
        for metric, kind in SHORT.items()
    ),
    *(
        FORMS.ordering(metric, "greater", left, right, like=("opd", like), section="ours", suite="controls")
        for left, right, like in (("opd", "sft-slow", "sft"), ("opd-8x8", "rlvr", "rlvr"), ("opd", "rlvr-32x8", "rlvr"))
        for metric in (SIMILARITY["bf16", 25], SIMILARITY["master", 25])
    ),
    *(
        FORMS.equivalence(metric, "opd-mix-00", "rlvr", suite="controls", paper="not tested")
        for metric in (UNCHANGED, STABLE_RANK["master"])
    ),
)
NORMED: tuple[Claim, ...] = (
    FORMS.equivalence(
        NORM["master"],
        "rlvr-norm",
        "opd",
        suite="controls",
        band=0.05,
        note="What the arm was trained to, but for the weighting of matrices.",
    ),
    *(
        FORMS.difference(metric, "ours", "opd", "rlvr-norm", "RLVR of the same norm", NO_CONTROL, "controls")
        for metric in (*COMPARED, ACCURACY)
        if metric not in NORM.values()
    ),
)
