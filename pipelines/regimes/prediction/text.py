"""Describe correlations in one sentence."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from pipelines.regimes.prediction.predictions import SCOPES


def describe_prediction(rows: pl.DataFrame) -> str:
    """Spearman's correlation of Sim_16 at 10 % (masters) with final accuracy, as a sentence; empty without rows."""
    selected = rows.filter(view="master", share=0.10, outcome="accuracy", coefficient="spearman")
    result = {
        row["scope"]: format_correlation(row)
        for row in selected.iter_rows(named=True)
        if row["correlation"] is not None
    }
    if "pooled" not in result:
        return ""
    pooled = selected.row(by_predicate=pl.col("scope") == "pooled", named=True)
    others = "".join(f"; {scope} {result[scope]}" for scope in SCOPES[1:] if scope in result)
    return (
        f"Over {pooled['runs']} runs of {pooled['seeds']} seeds, Sim_16 at 10 % of training (masters) and final "
        f"accuracy have a rank correlation of {result['pooled']}{others}. Arms differ in more than locking: only the "
        "correlation within arms is free of that."
    )


def format_correlation(row: Mapping[str, Any]) -> str:
    """A correlation with its interval and p."""
    if row["correlation"] is None:
        return "-"
    bounds = "no interval" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
    p = "no p" if row["p_value"] is None else f"p {row['p_value']:.2g}"
    return f"{row['correlation']:.2f} [{bounds}; {p}]"
