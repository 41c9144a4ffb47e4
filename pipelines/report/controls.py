"""What the controls say about one table or figure, in sentences from the verdict rows that rest on its tables."""

from collections.abc import Collection

import polars as pl

from pipelines.report import prose
from pipelines.report.claims import BY_TEXT

NONE = {
    "core": "No statement with a control rests on these numbers.",
    "objectives": "Each panel has OPD as its control. No statement that holds has another one here.",
    "interventions": "Random directions and the free run are the controls; no statement that holds has them here.",
}


def controls(decided: pl.DataFrame, names: Collection[str], suite: str = "core") -> list[str]:
    """Of the statements on the tables `names`: what their controls say, the matched control, and the other view."""
    texts = [text for text in decided["claim"] if BY_TEXT[text].metric.table in names and BY_TEXT[text].suite == suite]
    rows = decided.filter(pl.col("claim").is_in(texts))
    told = prose.controlled(rows, suite)
    if suite == "core" and prose.section(rows, "control"):
        told.append(prose.control(rows))
    if suite == "core" and (split := prose.split_views(rows)):
        told.append(f"Differently on bf16 and on master weights, so storage has a part in it: {'; '.join(split)}.")
    return told or [NONE[suite]]
