"""The table that `opd measure` prints at its end: one row for each role at the last step."""

from typing import Any

from pipelines.cli.layout import stack_table, wrap_text
from pipelines.store.objects import Store

COUNTED = ("update_support", "unchanged")  # columns that are weighted by the number of weights
SAYS_NOTHING = 90.0  # degrees: a bound on an angle that excludes nothing
ABSENT = "-"


def role_lines(store: Store, recipe: str, step: int) -> str:
    """A heading and a table: means over the matrices of each role, and the largest error bound of each column.

    Empty if no table has a row at that step. Unchanged weights are of the bf16 view, all other columns of the widest
    view: mean rotation angle on the input side at the largest k, NSS, stable rank, relative norm.
    """
    import polars as pl

    from pipelines import lake

    columns = {name: rows for name, rows in _columns(store, recipe, step).items() if not rows.is_empty()}
    if not columns:
        return ""
    every = pl.concat([rows.select("matrix", "role") for rows in columns.values()]).unique()
    counts = dict(every.group_by("role").len().iter_rows())
    roles = sorted(counts, key=_place)
    lines = [["role", "matrices", *columns]]
    for role in roles:
        of_role = (rows.filter(role=role) for rows in columns.values())
        lines.append([role, str(counts[role]), *(_mean(rows) for rows in of_role)])
    bounds = [_bound(rows) for rows in columns.values()]
    if any(bounds):
        lines.append(["bounds <=", "", *bounds])
    view = next((rows["view"][0] for name, rows in columns.items() if name != "unchanged, %"), "bf16")
    seen = {"master": "of the stored weights, unchanged in bf16", "bf16": "of weights in bf16"}[view]
    cut = lake.scan("rotation", store.uri).filter(recipe=recipe, step=step).select(pl.col("k").max()).collect().item()
    angles = "" if cut is None else f"; rotation of {cut} input directions"
    return f"{wrap_text(f'step {step}, means over matrices {seen}{angles}')}\n{stack_table(lines)}"


def _columns(store: Store, recipe: str, step: int) -> "dict[str, Any]":
    """Frames by column heading, with columns matrix, role, view, value, error (null without a bound) and weight."""
    import polars as pl

    from pipelines import lake

    def rows(table: str, value: str, error: str | None, **where: str) -> pl.DataFrame:
        frame = lake.scan(table, store.uri).filter(pl.col("recipe") == recipe, pl.col("step") == step)
        frame = frame.filter(**where) if where else frame
        if "k" in lake.TABLES[table].schema:
            frame = frame.filter(pl.col("k") == pl.col("k").max())
        scale = 100.0 if (table, value) == COUNTED else 1.0
        columns = frame.select(
            "matrix",
            "role",
            "view",
            value=scale * pl.col(value),
            error=pl.lit(None, pl.Float64()) if error is None else pl.col(error),
            weight=pl.col("numel").cast(pl.Float64()) if (table, value) == COUNTED else pl.lit(1.0),
        ).collect()
        return columns if where.get("view") else columns.filter(pl.col("view") == pl.col("view").max())

    return {
        "unchanged, %": rows(*COUNTED, None, view="bf16"),
        "rotation, deg": rows("rotation", "mean_deg", "error_deg", side="input"),
        "NSS": rows("spectral_drift", "nss", "error"),
        "stable rank": rows("update_norm", "stable_rank", "stable_rank_error"),
        "norm": rows("update_norm", "relative_norm", None),
    }


def _mean(rows: Any) -> str:
    """The weighted mean of the values that are not null."""
    import polars as pl

    present = rows.filter(pl.col("value").is_not_null())
    if present.is_empty():
        return ABSENT
    return f"{(present['value'] * present['weight']).sum() / present['weight'].sum():.3g}"


def _bound(rows: Any) -> str:
    """The largest error bound; empty for a column without bounds, `none` if a bound is missing or vacuous."""
    import polars as pl

    errors = rows.filter(pl.col("value").is_not_null())["error"]
    if errors.null_count() == len(errors):
        return ""
    largest = errors.max()
    return "none" if errors.null_count() or largest >= SAYS_NOTHING else f"{largest:.1g}"


def _place(role: str) -> int:
    from pipelines.runs.external.imports import ROLES

    return ROLES.index(role) if role in ROLES else len(ROLES)
