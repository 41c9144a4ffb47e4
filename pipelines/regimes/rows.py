"""Comparisons as rows of the table `regime`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.regimes.diagnostics import BY_NAME
from pipelines.regimes.judging import Comparison, agree_views

COMBINED = "combined"


def regime_rows(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """One row per view, budget, diagnostic and reference, and one per reference that combines the diagnostics.

    comparisons: of one run at one step. Where there is none to make, the combined rows say why.
    """
    regime = agree_views(comparisons)
    return [row | {"regime": regime} for comparison in comparisons for row in _rows(comparison)]


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    run = comparison.run
    shared = {
        "study": run.study,
        "recipe": run.recipe,
        "seed": run.seed,
        "step": int(run.steps[-1]),
        "view": run.view,
        "budget": comparison.budget,
        "relative_norm": comparison.norm,
        "budget_step": None if comparison.point is None else comparison.point.step,
        "verdict": comparison.verdict,
    }
    rows = []
    for arm in comparison.labels:
        reference = {"reference": f"{comparison.study}.{arm}"}
        for name in comparison.beside.names if comparison.beside else ():
            assert comparison.point is not None and comparison.beside is not None
            rows.append(
                shared
                | reference
                | {
                    "diagnostic": name,
                    "scale": "log" if BY_NAME[name].log else "linear",
                    "value": to_measured_scale(name, comparison.point.values[name]),
                    "reference_value": to_measured_scale(name, comparison.centres[arm][name]),
                    "spread": comparison.beside.spread[name],
                    "distance": comparison.distances[arm][name],
                }
            )
        for name, why in comparison.left_out.items():
            rows.append(shared | reference | {"diagnostic": name, "reason": why})
        own = {"diagnostic": COMBINED, "confusion": comparison.confusion, "distance": comparison.combined.get(arm)}
        rows.append(shared | reference | own | {"reason": comparison.reason or None})
    return rows


def to_measured_scale(name: str, value: float) -> float:
    """A value as it is measured, from the scale it is compared in."""
    return float(np.exp(value)) if BY_NAME[name].log else value
