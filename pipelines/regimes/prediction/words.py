"""Correlations on the terminal: aligned columns and a plain sentence."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from pipelines.regimes.prediction.predictions import SCOPES
from pipelines.statistics.numbers import aligned


def sentence(rows: pl.DataFrame) -> str:
    """What Sim_16 at 10 % in the masters says of the final accuracy, by Spearman's correlation; empty without it."""
    found = rows.filter(view="master", share=0.10, outcome="accuracy", coefficient="spearman")
    told = {row["scope"]: shown(row) for row in found.iter_rows(named=True) if row["correlation"] is not None}
    if "pooled" not in told:
        return ""
    pooled = found.row(by_predicate=pl.col("scope") == "pooled", named=True)
    others = "".join(f"; {scope} {told[scope]}" for scope in SCOPES[1:] if scope in told)
    return (
        f"Over {pooled['runs']} runs of {pooled['seeds']} seeds, Sim_16 at 10 % of training (masters) and final "
        f"accuracy have a rank correlation of {told['pooled']}{others}. Arms differ in more than locking: only the "
        "correlation within arms is free of that."
    )


def terminal(rows: pl.DataFrame) -> str:
    """Spearman's correlations in aligned columns."""
    lines = [["view", "Sim_16 at", "outcome", "runs", "seeds", *SCOPES, "note"]]
    keys = ["view", "share", "outcome", "family"]
    for key, part in rows.filter(coefficient="spearman").group_by(keys, maintain_order=True):
        view, share, outcome, family = key
        by = {row["scope"]: row for row in part.iter_rows(named=True)}
        whole = by["pooled"]
        cells = [shown(by[scope]) if scope in by else "-" for scope in SCOPES]
        named = f"{outcome} {family}" if family else str(outcome)
        lines.append(
            [str(view), f"{100 * share:g} %", named, str(whole["runs"]), str(whole["seeds"]), *cells, whole["note"]]
        )
    return aligned(lines)


def shown(row: Mapping[str, Any]) -> str:
    """A correlation with its interval and p."""
    if row["correlation"] is None:
        return "-"
    bounds = "no interval" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
    p = "no p" if row["p_value"] is None else f"p {row['p_value']:.2g}"
    return f"{row['correlation']:.2f} [{bounds}; {p}]"
