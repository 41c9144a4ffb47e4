"""Column lineage from the tables of runs to the tables about many runs."""

from collections.abc import Iterable
from functools import cache

import dagster as dg

from assets.partitions import STUDIES
from pipelines.lake import TABLES
from pipelines.regimes.diagnostics import DIAGNOSTICS
from pipelines.statistics.metrics import PARAMETERS, RUN_TABLES
from pipelines.statistics.stories import story_of

Column = tuple[str, str]  # table, column
DECIDED = (  # columns of verdicts
    *("left_value", "right_value", "effect", "low", "high", "boot_low", "boot_high", "size", "detectable"),
    *("holds", "status", "seeds", "control_effect", "control_low", "control_high", "control_says"),
    "same_sign_weighted",
)
JUDGED = ("value", "reference_value", "spread", "distance", "confusion", "verdict", "regime")  # of regime
SIZED = ("relative_norm", "budget_step")  # of it too
CORRELATED = ("correlation", "low", "high", "p_value", "runs", "seeds")  # of predictions


@cache
def column_lineage(table: str) -> dict[str, dg.TableColumnLineage]:
    """The column lineage metadata of `verdicts`, `regime` or `predictions`."""
    behind = {name: sorted(set(found)) for name, found in _source_columns(table).items()}
    deps = {
        name: [dg.TableColumnDep(asset_key=source, column_name=column) for source, column in found]
        for name, found in behind.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps)}


def _source_columns(table: str) -> dict[str, Iterable[Column]]:
    if table == "verdicts":
        claims = [claim for study in STUDIES.values() for claim in story_of(study).default_claims]
        metrics = {metric for claim in claims for metric in claim.metrics}
        read = {(metric.table, metric.column) for metric in metrics}
        if any(metric.table not in RUN_TABLES for metric in metrics):
            read.add(("update_support", PARAMETERS))  # the other weighting
        return {name: read for name in DECIDED}
    if table == "regime":
        read = {(one.table, column) for one in DIAGNOSTICS for column in (one.column, one.error) if column}
        for one in DIAGNOSTICS:  # what it is divided by is a column beside it, or its own of a null
            if one.over:
                beside = one.over in TABLES[one.table].schema
                read.add((one.table, one.over) if beside else ("nulls", one.column))
        size: Column = ("update_norm", "relative_norm")
        found: dict[str, Iterable[Column]] = {name: {*read, size} for name in JUDGED}
        return found | {name: {size} for name in SIZED}
    read = {("locking", "similarity"), ("evaluation", "accuracy"), ("transfer", "accuracy")}
    return {name: read for name in CORRELATED}
