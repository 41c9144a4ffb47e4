"""The similarity of a run's update to its projected end, from snapshots: computed once a step, one task per matrix.

runs/<recipe>/seed-<n>/projected.json   step: from (engine, stamps of W0, the earlier snapshot and this one) and the
                                        mean over the decoder projections by view, null where one has no value
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import polars as pl

from opd_ops.geometry import VERSION
from opd_ops.recipe.reaction import earlier
from pipelines.regimes.readings import RANK, order_readings
from pipelines.runs.cluster.attach import use_one_thread
from pipelines.runs.cluster.map_tasks import map_tasks
from pipelines.runs.geometry import estimates, records
from pipelines.store.matrix import MatrixRef
from pipelines.store.objects import Store

Line = tuple[tuple[int, MatrixRef, MatrixRef], ...]  # step, W0 and W_t of one matrix


@dataclass(frozen=True, kw_only=True)
class Course:
    """One matrix along a run, with the requested steps and the earlier step of each."""

    name: str
    line: Line
    wanted: tuple[tuple[int, int], ...]

    def memory(self) -> int:
        """Upper bound of its worker's memory in bytes."""
        refs = [ref for _, *both in self.line for ref in both]
        exact = any(estimates.dense(ref.shape, ref.ref.dtype, (RANK,)) for ref in refs)
        stored = max((ref.nbytes for ref in refs), default=0)
        return estimates.projected_bytes(refs[0].shape, stored, exact=exact) if refs else 0


def project_end(course: Course) -> list[dict[str, Any]]:
    """Similarity to the projected end of one matrix by step and view; null with a reason if undefined."""
    use_one_thread()
    import torch

    from opd_ops.geometry.projected import similarity_to_end
    from opd_ops.geometry.views import as_view, count_nonfinite, views_of_dtype

    refs = {step: (before, after) for step, before, after in course.line}
    found: list[dict[str, Any]] = []
    for step, previous in course.wanted:
        if step not in refs or previous not in refs:
            continue
        w0, now, then = refs[step][0].read(), refs[step][1].read(), refs[previous][1].read()
        exact = estimates.dense(w0.shape, refs[step][1].ref.dtype, (RANK,))
        for view in views_of_dtype(now.dtype):
            value, reason = None, "weights are not finite"
            if not any(map(count_nonfinite, (w0, now, then))):
                start = as_view(w0, view)
                dtype = torch.float64 if exact else torch.float32
                e, before = ((as_view(w, view) - start).to(dtype) for w in (now, then))
                value, reason = similarity_to_end(e, before, RANK)
            found.append({"matrix": course.name, "step": step, "view": view, "value": value, "reason": reason})
    return found


def with_projected(
    store: Store, prefix: str, readings: pl.DataFrame, lines: dict[str, Line], stamps: dict[int, str], *, serial: bool
) -> pl.DataFrame:
    """Readings of one run with similarity_projected: read from projected.json for these weights, else computed.

    prefix: of the run. lines: by matrix. stamps: of the weights by step, with step 0.
    """
    key = f"{prefix}/projected.json"
    kept = records.parse_fields(store, key)
    steps = sorted(step for step in stamps if step > 0)
    pairs = [(step, previous) for step in steps if (previous := earlier(steps, step)) is not None]
    made_from = {str(step): [VERSION, stamps[0], stamps[previous], stamps[step]] for step, previous in pairs}
    known = {
        step: found for step, found in kept.items() if _is_readable(found) and made_from.get(step) == found["from"]
    }
    if wanted := tuple((step, previous) for step, previous in pairs if str(step) not in known):
        store.require_writable()
        courses = [Course(name=name, line=line, wanted=wanted) for name, line in sorted(lines.items())]
        told = map_tasks(project_end, courses, serial=serial, memory=Course.memory, name=lambda course: course.name)
        rows = [row for found in told for row in found]
        for step, _ in wanted:
            views = sorted({row["view"] for row in rows if row["step"] == step})
            values = {
                view: _mean([r["value"] for r in rows if (r["step"], r["view"]) == (step, view)]) for view in views
            }
            known[str(step)] = {"from": made_from[str(step)], "values": values}
        store.write(key, (json.dumps(known, sort_keys=True) + "\n").encode())
    norms = readings.filter(pl.col("quantity") == "relative_norm")
    places = norms.select("step", "view").iter_rows()
    values = [known[str(step)]["values"].get(view) if str(step) in known else None for step, view in places]
    more = norms.with_columns(quantity=pl.lit("similarity_projected"), value=pl.Series(values, dtype=pl.Float64()))
    return order_readings(pl.concat([readings, more.select(readings.columns)]))


def _is_readable(found: Any) -> bool:
    """Whether the stored value of a step has the right form."""
    values = found.get("values") if isinstance(found, dict) else None
    if not isinstance(values, dict) or "from" not in found:
        return False
    return all(value is None or (isinstance(value, float) and math.isfinite(value)) for value in values.values())


def _mean(values: list[float | None]) -> float | None:
    """The mean, if every matrix has a value."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if len(there) == len(values) else None
