"""The page's sections on questions past the paper's: regimes, prediction by early locking, and size."""

from collections.abc import Mapping

import polars as pl

from pipelines.regimes.prediction.predictions import SCOPES
from pipelines.regimes.prediction.words import sentence, shown
from pipelines.regimes.references import ARMS
from pipelines.regimes.rows import COMBINED
from pipelines.report import markup
from pipelines.report.arms import label
from pipelines.statistics import scaling

REGIMES = (
    "Every run is read off where it and all references had moved equally far, and put beside the core runs of SFT, OPD "
    "and RLVR of the other seeds, diagnostic by diagnostic, in units of the references' spread over seeds. Its regime "
    "is that of the nearest in both views. Where the views disagree, or two references are about as near, it cannot be "
    "told."
)


def regimes(rows: pl.LazyFrame) -> str:
    """The verdict on each arm's runs and its distances, from the table `regime`; nothing where none was judged."""
    combined = rows.filter(pl.col("diagnostic") == COMBINED, pl.col("budget") == "norm")
    last = pl.col("step") == pl.col("step").max().over("recipe", "seed")
    found = combined.filter(last).sort("recipe", "seed", "view").collect()
    if found.is_empty():
        return ""
    lines = []
    for (recipe,), runs in found.group_by("recipe", maintain_order=True):
        verdicts = runs.unique(["seed", "regime"]).group_by("regime").agg(seeds=pl.len()).sort("seeds", descending=True)
        told = ", ".join(f"{row['regime']} ({row['seeds']})" for row in verdicts.iter_rows(named=True))
        cells = [_range(runs, view, arm) for view in ("bf16", "master") for arm in ARMS]
        lines.append((label(str(recipe).split(".", 1)[1]), told, *cells))
    heading = ("arm", "regime (runs)", *(f"to {label(arm)}, {view}" for view in ("bf16", "master") for arm in ARMS))
    table = markup.table("Root mean square distance to each reference, lowest and highest seed", heading, lines)
    return markup.paragraph(REGIMES) + f'<div class="numbers">{table}</div>'


def _range(runs: pl.DataFrame, view: str, arm: str) -> str:
    mine = runs.filter(pl.col("view") == view, pl.col("reference") == pl.format("{}.{}", "study", pl.lit(arm)))[
        "distance"
    ].drop_nulls()
    if mine.is_empty():
        return "-"
    low, high = f"{mine.min():.1f}", f"{mine.max():.1f}"
    return low if low == high else f"{low} to {high}"


def predicted(rows: pl.DataFrame) -> str:
    """Spearman's correlations of early locking with what was learnt; nothing where there is none."""
    told = sentence(rows)
    if not told:
        return ""
    lines = []
    keys = ["view", "share", "outcome", "family"]
    for (view, share, outcome, family), part in rows.filter(coefficient="spearman").group_by(keys, maintain_order=True):
        by = {row["scope"]: row for row in part.iter_rows(named=True)}
        named = f"{outcome} {family}" if family else str(outcome)
        cells = [shown(by[scope]) if scope in by else "-" for scope in SCOPES]
        lines.append((f"{view}, {100 * share:g} %", named, str(by["pooled"]["runs"]), *cells))
    table = markup.table(
        "Rank correlation of Sim_16 to the final step with the outcome [95 %; p]",
        ("Sim_16", "outcome", "runs", *SCOPES),
        lines,
    )
    return markup.paragraph(told) + markup.details("All correlations", f'<div class="numbers">{table}</div>')


def sizes(study: str, tables: Mapping[str, pl.LazyFrame]) -> str:
    """Exponents and ratios of the suite scaling; nothing where it has no two sizes."""
    found = scaling.scaling(study, tables)
    if found.is_empty():
        return ""
    heading, *lines = scaling.grid(found)
    table = markup.table("Estimate and 95 % interval over seeds", heading, lines)
    return markup.paragraph(scaling.CANNOT) + f'<div class="numbers">{table}</div>'
