"""Describe how a table was computed, from its rows: precision, method, error bound and noise floor."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.statistics.metrics import END
from pipelines.statistics.numbers import join_words
from pipelines.statistics.samples import arm_rows, rows_at_share

ERRORS = {  # column, the bound on its error, and from where on that says nothing
    "rotation": ("max_deg", "error_deg", 90.0),
    "singular_shift": ("largest", "error", math.inf),
    "spectral_drift": ("nss", "error", math.inf),
    "update_norm": ("stable_rank", "stable_rank_error", math.inf),
    "hill": ("hill", "error", math.inf),
    "locking": ("similarity", "error", 1.0),
}
COUNTS = ("update_support", "localization")  # of equal bits: nothing is estimated
CUTS = ("k", "alpha", "rank")
FLOOR = "rounding_norm"


def describe_tables(names: Collection[str], tables: Mapping[str, pl.LazyFrame], arms: Collection[str]) -> list[str]:
    """One or two sentences per table of `names` that has rows of `arms`."""
    return [sentence for name in names if (sentence := _describe_table(name, arm_rows(tables, name, arms)))]


def _describe_table(name: str, rows: pl.LazyFrame) -> str:
    columns = TABLES[name].schema
    facts = [column for column in ("matrix", "seed", "dtype", "view", "method", *CUTS) if column in columns]
    distinct = rows.select(pl.col(column).unique().drop_nulls().sort().implode() for column in facts).collect()
    runs = rows.group_by("recipe", "seed").agg(pl.col("step").n_unique()).select(pl.col("step").max()).collect().item()
    if distinct.is_empty() or not distinct["seed"][0].len():
        return ""
    values: dict[str, list[Any]] = {column: distinct[column][0].to_list() for column in facts}
    parts = []
    if "matrix" in values:
        parts.append(f"{len(values['matrix'])} matrices")
    parts += [f"{_count('snapshot', runs)} a run", f"{_plural('seed', values['seed'])} {_join_values(values['seed'])}"]
    if values.get("dtype"):
        parts.append(f"weights stored in {_join_values(values['dtype'])}, read as {_join_values(values['view'])}")
    if values.get("method"):
        parts.append(f"{_plural('method', values['method'])} {_join_values(values['method'])}")
    parts += [f"{cut} = {_join_values(values[cut])}" for cut in CUTS if values.get(cut)]
    return f"{name}: {', '.join(parts)}.{_describe_exactness(name, rows)}"


def _describe_exactness(name: str, rows: pl.LazyFrame) -> str:
    if name in COUNTS:
        return " A count of equal bits, which has no error."
    if name == "evaluation":
        ends = rows.select(pl.col("stderr").median(), pl.col("n").median()).collect().row(0)
        return (
            ""
            if None in ends
            else f" Standard error of one run: {100 * ends[0]:.1f} points over {ends[1]:.0f} samples."
        )
    if name not in ERRORS:
        return ""
    value, error, limit = ERRORS[name]
    ratio = (pl.col(error) / pl.col(value).abs()).filter(pl.col(value) != 0, pl.col(error) < limit)
    columns = {"median": ratio.median(), "largest": ratio.max()}
    if FLOOR in TABLES[name].schema:
        view, floor = pl.col("view") == "bf16", pl.col(FLOOR) / pl.col("frobenius")
        columns["floor"] = floor.filter(view & (pl.col("frobenius") > 0)).median()
    end_rows = rows_at_share(name, rows, END) if name != "locking" else rows
    ends = end_rows.select(**columns).collect().row(0, named=True)
    sentences = ""
    if ends["median"] is not None:
        sentences += (
            f" Error bound of {value} over its value: median {ends['median']:.1e}, largest {ends['largest']:.1e}."
        )
    if ends.get("floor") is not None:
        sentences += (
            f" Noise floor: bf16's rounding is {100 * ends['floor']:.2g} % of the update's norm at the end (median)."
        )
    return sentences


def _join_values(values: list[Any]) -> str:
    words = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return join_words(words) if len(words) < 7 else f"{words[0]} to {words[-1]}"


def _plural(word: str, values: list[Any]) -> str:
    return word if len(values) == 1 else f"{word}s"


def _count(word: str, count: int) -> str:
    return f"{count} {word if count == 1 else f'{word}s'}"
