"""The scalars that summarise a run, declared with the values arXiv 2606.07082 reports for its 8B runs.

Every metric is one number per run: the unweighted mean over the decoder's projection matrices (q k v o gate up down) at
one step. The share of unchanged weights is weighted by parameter count. Accuracy and what a constraint lets leak have
no matrix.
"""

from dataclasses import dataclass, replace
from typing import Literal

Unit = Literal["percent", "deg", ""]
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
START, EARLY, END = 0.0, 0.05, 1.0
RUN_TABLES = ("evaluation", "training")  # which have no matrices
PARAMETERS = "numel"  # the weight by number of weights; a column of update_support


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One column of one table at one point of the run, averaged over matrices."""

    words: str  # name for readers, view included
    family: str = ""  # name without the view and the share of the run
    table: str  # table of the lake
    column: str  # column of the table
    where: tuple[tuple[str, str | int | float], ...] = ()  # column equals value
    at: float = END  # share of the run's steps: START and END are exact, else the nearest snapshot
    since: float | None = None  # if set, the value is the change since this share of the run
    cut: str | None = None  # column fixed at its largest value among those with the fewest nulls
    weight: str | None = None  # PARAMETERS weights matrices by their number of weights; None is unweighted
    unit: Unit = ""  # percent: a fraction shown as %
    paper: tuple[tuple[str, str], ...] = ()  # (arm, what the paper reports)
    remark: str = ""  # what to know before reading the number

    @property
    def view(self) -> str | None:
        value = dict(self.where).get("view")
        return value if isinstance(value, str) else None

    def reweighted(self) -> "Metric | None":
        """The same by the other weighting, parameters for matrices or back; None where there are no matrices."""
        if self.table in RUN_TABLES:
            return None
        return replace(self, weight=None if self.weight else PARAMETERS)

    def reported(self, arm: str) -> str:
        """The paper's value for `arm`, marked where this is not the paper's view: its checkpoints are bf16."""
        value = dict(self.paper).get(arm)
        if value is None:
            return "not reported"
        return f"{value} (bf16)" if self.view == "master" else value

    def address(self, cut: int | None = None) -> str:
        """`table.column` and everything else that fixes the number, for the verdicts table."""
        fixed = [str(value) if key == "view" else f"{key}={value}" for key, value in self.where]
        if self.cut is not None and cut is not None:
            fixed.append(f"{self.cut}={cut}")
        if self.since is not None:
            fixed.append(f"change since {100 * self.since:g} %")
        elif self.at == START:
            fixed.append("start")
        elif self.at != END:
            fixed.append(f"at {100 * self.at:g} %")
        return ", ".join([f"{self.table}.{self.column}", *fixed])


def trio(sft: str, opd: str, rlvr: str) -> tuple[tuple[str, str], ...]:
    return (("sft", sft), ("opd", opd), ("rlvr", rlvr))


def viewed(metric: Metric, view: str) -> Metric:
    """`metric` in one view."""
    return replace(metric, words=f"{metric.words}, {view}", family=metric.words, where=(("view", view), *metric.where))


VIEWS = ("bf16", "master")
ROUNDING = "Rounding to bf16 alone raises stable rank and lowers Sim_16 while an update is small; read beside master."

UNCHANGED = viewed(
    Metric(
        words="unchanged weights",
        table="update_support",
        column="unchanged",
        weight=PARAMETERS,
        unit="percent",
        paper=trio("8.1 %", "51.6 %", "77.2 %"),
        remark="Levels depend on model size, learning rate and steps; only the order is compared.",
    ),
    "bf16",
)
_ROTATION = Metric(
    words="rotation, input side",
    table="rotation",
    column="mean_deg",
    where=(("side", "input"),),
    cut="k",
    unit="deg",
    paper=trio("> 10 deg", "about 1 deg", "< 0.5 deg"),
    remark="The paper shows one layer at k = 512; here the mean angle over all projection matrices.",
)
_NSS = Metric(
    words="spectral drift (NSS)",
    table="spectral_drift",
    column="nss",
    paper=trio("about 3e-3", "1e-4 to 2e-4", "1e-5 to 2e-5"),
    remark="Paper's values: orders of magnitude in the text, ranges from axis ticks.",
)
_NORM = Metric(
    words="relative norm of the update",
    table="update_norm",
    column="relative_norm",
    remark="The paper does not match norms across its runs.",
)
_FROBENIUS = Metric(
    words="Frobenius norm of the update",
    table="update_norm",
    column="frobenius",
    paper=trio("4.701", "0.452", "0.168"),
    remark="Paper's values stand in its LaTeX source, commented out.",
)
LOW_MAGNITUDE = viewed(
    Metric(
        words="low-magnitude overlap",
        table="localization",
        column="overlap",
        where=(("mask", "low_magnitude"), ("alpha", 0.5)),
        unit="percent",
        paper=trio("31.88 % (chance 30 %)", "53.59 %", "73.48 %"),
        remark="Chance is 50 % here, 30 % in the paper's figure. bf16's finer grid at small weights favours the mask.",
    ),
    "bf16",
)
PRINCIPAL = viewed(
    Metric(
        words="principal-mask overlap",
        table="localization",
        column="overlap",
        where=(("mask", "principal"), ("alpha", 0.5)),
        unit="percent",
        paper=trio("29.66 % (chance 30 %)", "27.31 %", "26.65 %"),
        remark="Chance is 50 % here and 30 % in the paper's figure.",
    ),
    "bf16",
)
_STABLE_RANK = Metric(
    words="stable rank of the update",
    table="update_norm",
    column="stable_rank",
    paper=trio("rises to about 75", "stays in about 18 to 28", "falls to OPD's level"),
    remark=ROUNDING,
)
_SIMILARITY = Metric(
    words="Sim_16 to the final step",
    table="locking",
    column="similarity",
    where=(("side", "input"), ("k", 16)),
    paper=trio("starts lower", "high from the first checkpoint (<= 21 %)", "starts lower"),
    remark=ROUNDING,
)
ROTATION = {view: viewed(_ROTATION, view) for view in VIEWS}
NSS = {view: viewed(_NSS, view) for view in VIEWS}
NORM = {view: viewed(_NORM, view) for view in VIEWS}
FROBENIUS = {view: viewed(_FROBENIUS, view) for view in VIEWS}
STABLE_RANK = {view: viewed(_STABLE_RANK, view) for view in VIEWS}
STABLE_RANK_EARLY = {
    view: replace(metric, words=f"stable rank of the update at 5 %, {view}", at=EARLY, paper=())
    for view, metric in STABLE_RANK.items()
}
STABLE_RANK_CHANGE = {
    view: replace(metric, words=f"change of stable rank since 5 %, {view}", since=EARLY, paper=())
    for view, metric in STABLE_RANK.items()
}
SIMILARITY = {
    (view, percent): replace(
        viewed(_SIMILARITY, view), words=f"Sim_16 to the final step at {percent} %, {view}", at=percent / 100
    )
    for view in VIEWS
    for percent in (10, 25)
}
ACCURACY = Metric(
    words="final accuracy at T=1",
    table="evaluation",
    column="accuracy",
    where=(("temperature", 1.0),),
    unit="percent",
    remark="Arms are not matched in accuracy.",
)
ACCURACY_START = replace(ACCURACY, words="starting accuracy at T=1", at=START)
LEAKED = Metric(
    words="leaked share of the update",
    table="training",
    column="leaked",
    unit="percent",
    remark="|dW - P(dW)| / |dW| of the whole update of the confined matrices since the run began.",
)
REMOVED = replace(LEAKED, words="removed share of the last gradient", column="removed", remark="")
