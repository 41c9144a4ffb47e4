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


def _rows(found: Comparison) -> list[dict[str, Any]]:
    run = found.run
    shared = {
        "study": run.study,
        "recipe": run.recipe,
        "seed": run.seed,
        "step": int(run.steps[-1]),
        "view": run.view,
        "budget": found.budget,
        "relative_norm": found.norm,
        "budget_step": None if found.point is None else found.point.step,
        "verdict": found.verdict,
    }
    made = []
    for arm in found.labels:
        reference = {"reference": f"{found.study}.{arm}"}
        for name in found.beside.names if found.beside else ():
            assert found.point is not None and found.beside is not None
            made.append(
                shared
                | reference
                | {
                    "diagnostic": name,
                    "scale": "log" if BY_NAME[name].log else "linear",
                    "value": to_measured_scale(name, found.point.values[name]),
                    "reference_value": to_measured_scale(name, found.centres[arm][name]),
                    "spread": found.beside.spread[name],
                    "distance": found.distances[arm][name],
                }
            )
        for name, why in found.left_out.items():
            made.append(shared | reference | {"diagnostic": name, "reason": why})
        own = {"diagnostic": COMBINED, "confusion": found.confusion, "distance": found.combined.get(arm)}
        made.append(shared | reference | own | {"reason": found.reason or None})
    return made


def to_measured_scale(name: str, value: float) -> float:
    """A value as it is measured, from the scale it is compared in."""
    return float(np.exp(value)) if BY_NAME[name].log else value
