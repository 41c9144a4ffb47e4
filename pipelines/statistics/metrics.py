"""The scalars that summarise a run.

Every metric is one number per run: the unweighted mean over the decoder's projection matrices (q k v o gate up down) at
one step. The share of unchanged weights is weighted by parameter count. Accuracy and the leak of a constraint are not
per matrix.
"""

from dataclasses import replace

from pipelines.studies.metric import EARLY, END, PARAMETERS, RUN_TABLES, START, Metric, Unit

__all__ = ["EARLY", "END", "PARAMETERS", "RUN_TABLES", "START", "Metric", "Unit"]

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")


def in_view(metric: Metric, view: str) -> Metric:
    """`metric` in one view."""
    return replace(metric, words=f"{metric.words}, {view}", family=metric.words, where=(("view", view), *metric.where))


VIEWS = ("bf16", "master")
ROUNDING = "Rounding to bf16 alone raises stable rank and lowers Sim_16 while an update is small; read beside master."

UNCHANGED = in_view(
    Metric(
        words="unchanged weights",
        table="update_support",
        column="unchanged",
        weight=PARAMETERS,
        unit="percent",
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
    remark="The mean angle over all projection matrices.",
)
_NSS = Metric(
    words="spectral drift (NSS)",
    table="spectral_drift",
    column="nss",
)
_NORM = Metric(
    words="relative norm of the update",
    table="update_norm",
    column="relative_norm",
)
_FROBENIUS = Metric(
    words="Frobenius norm of the update",
    table="update_norm",
    column="frobenius",
)
LOW_MAGNITUDE = in_view(
    Metric(
        words="low-magnitude overlap",
        table="localization",
        column="overlap",
        where=(("mask", "low_magnitude"), ("alpha", 0.5)),
        unit="percent",
        remark="Chance is 50 %. bf16's finer grid at small weights favours the mask.",
    ),
    "bf16",
)
PRINCIPAL = in_view(
    Metric(
        words="principal-mask overlap",
        table="localization",
        column="overlap",
        where=(("mask", "principal"), ("alpha", 0.5)),
        unit="percent",
        remark="Chance is 50 %.",
    ),
    "bf16",
)
_STABLE_RANK = Metric(
    words="stable rank of the update",
    table="update_norm",
    column="stable_rank",
    remark=ROUNDING,
)
_SIMILARITY = Metric(
    words="Sim_16 to the final step",
    table="locking",
    column="similarity",
    where=(("side", "input"), ("k", 16)),
    remark=ROUNDING,
)
ROTATION = {view: in_view(_ROTATION, view) for view in VIEWS}
NSS = {view: in_view(_NSS, view) for view in VIEWS}
NORM = {view: in_view(_NORM, view) for view in VIEWS}
FROBENIUS = {view: in_view(_FROBENIUS, view) for view in VIEWS}
STABLE_RANK = {view: in_view(_STABLE_RANK, view) for view in VIEWS}
STABLE_RANK_EARLY = {
    view: replace(
        metric, words=f"stable rank of the update at 5 %, {view}", family="stable rank of the update at 5 %", at=EARLY
    )
    for view, metric in STABLE_RANK.items()
}
STABLE_RANK_CHANGE = {
    view: replace(
        metric, words=f"change of stable rank since 5 %, {view}", family="change of stable rank since 5 %", since=EARLY
    )
    for view, metric in STABLE_RANK.items()
}
SIMILARITY = {
    (view, percent): replace(
        in_view(_SIMILARITY, view), words=f"Sim_16 to the final step at {percent} %, {view}", at=percent / 100
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
