"""The story of the studies tiny, smollm and qwen3."""

import polars as pl

from pipelines.paper.arms import ARMS, REMARKS, REPORTED, SOURCE
from pipelines.paper.claims import CLAIMS
from pipelines.paper.items import ITEMS
from pipelines.paper.suites import SUITES
from pipelines.statistics.metrics import ACCURACY, ROTATION, SIMILARITY, STABLE_RANK, UNCHANGED
from pipelines.statistics.numbers import format_quantity
from pipelines.studies.story import Sizes, Story

SIZES = Sizes(
    suite="scaling",
    arms=("sft", "opd", "rlvr"),
    widths=("w64", "", "w256"),
    ratios={"depth": "d4", "family": "llama"},
    titles={"width": "exponent in weights", "depth": "4 layers / 2", "family": "Llama / Qwen3"},
    caveat="Three widths within a factor of 16 of weights fit almost any smooth curve: the exponents describe these "
    "sizes and do not reach 8B. Depth and family are one step each, without an exponent. The sizes pass their gates at "
    "different steps and accuracies, and base, teacher and anchor have learning rates of their own: what follows from "
    "size and what from them is not separated. All arms share one task, and each size one base.",
)
LIMITS = (
    "The models are far smaller than the paper's 8B and train for far fewer steps: orders are compared, not levels.",
    "The paper's trajectories use attention matrices only; here every projection matrix of the decoder counts once.",
)


def result_sentence(decided: pl.DataFrame, headline: pl.DataFrame) -> list[str]:
    """The result in one sentence: the ratios of rotation of SFT to OPD and RLVR, and the offline control."""
    rotation = ROTATION["bf16"].words
    turned = {
        row["arm"]: row["value"]
        for row in headline.iter_rows(named=True)
        if str(row["metric"]).startswith(rotation) and row["value"]
    }
    if not {"sft", "opd", "rlvr"} <= set(turned):
        return []
    ratio = turned["sft"] / turned["opd"]
    sentence = (
        f"SFT turns the weights {ratio:.2g} times as far as OPD, and OPD {turned['opd'] / turned['rlvr']:.2g} times as "
        "far as RLVR"
    )
    twin = decided.filter(pl.col("section") == "control", pl.col("seeds") > 2)
    if twin.is_empty():
        return [f"{sentence}."]
    same = twin.filter(pl.col("holds").is_null()).height
    own = format_quantity(turned["opd"], "deg")
    other = format_quantity(turned["sft-matched"], "deg") if "sft-matched" in turned else "the same"
    return [
        f"{sentence}; but offline SFT with OPD's start, rate and batch turns them as far as OPD does ({other} and "
        f"{own}): {same} of {twin.height} measures do not tell the two apart."
    ]


STORY = Story(
    title="On the geometry of on-policy distillation, repeated",
    about="The published values are those of the 8B runs of arXiv 2606.07082.",
    source=SOURCE,
    arms=ARMS,
    suites=SUITES,
    claims=CLAIMS,
    reported=REPORTED,
    remarks=REMARKS,
    headline=(UNCHANGED, ROTATION["bf16"], STABLE_RANK["master"], SIMILARITY["master", 25], ACCURACY),
    lead="locking",
    lines=result_sentence,
    exhibits=ITEMS,
    sizes=SIZES,
    references={"sft": "SFT", "opd": "OPD", "rlvr": "RLVR"},
    limits=LIMITS,
)
