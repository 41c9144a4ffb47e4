"""The quantities that figures draw, and the choices that a reader has: role, layers and cuts.

`Quantity.rows` contains the rows of every choice, over seeds. A chart filters them by the selection (`bind_field`) and
shows the first choice at the start.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from pipelines.report.panels import INDEX, PROGRESS
from pipelines.statistics import null_values
from pipelines.statistics.metrics import PROJECTIONS
from pipelines.statistics.samples import arm_rows, final_step, rows_at_largest_cut, weighted_mean
from pipelines.statistics.series import shared_cut

Tables = Mapping[str, pl.LazyFrame]
First = Callable[[pl.LazyFrame, Collection[str]], Mapping[str, Any]]  # of a table and arms: each cut's first value

ALL, DEPTHS = "all", 6  # more layers than this are offered in as many ranges
TITLES = {"role": "role", "layer": "layers", "k": "cut k", "side": "side", "mask": "mask", "alpha": "share masked"}
MASK, MASKED = "low_magnitude", 0.5  # the mask of W0 that is drawn over training, and the share of weights in it
ROWS = {"value": pl.Float64(), "low": pl.Float64(), "high": pl.Float64()}


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One column, by role, layer and `cuts`, over training or, at its end, over the index of a list.

    first: what the figure shows, by cut. null: rows of the table nulls with the columns of `table`. floor: column with
    the level of chance.
    """

    table: str
    column: str
    title: str  # of the vertical axis, with the unit
    cuts: tuple[str, ...] = ()
    first: First = lambda rows, arms: {}
    where: tuple[tuple[str, str], ...] = ()  # column equals value
    null: Callable[[pl.LazyFrame], pl.LazyFrame] | None = None
    floor: str | None = None
    weight: str | None = None
    scale: float = 1.0
    log: bool = False
    domain: tuple[float, float] | None = None
    listed: bool = False  # the column holds lists, drawn over their index at the last step

    @property
    def axes(self) -> tuple[str, ...]:
        """The columns that a reader can select by."""
        return ("role", "layer", *self.cuts)

    @property
    def x(self) -> str:
        return INDEX if self.listed else PROGRESS

    def starts(self, tables: Tables, arms: Collection[str]) -> dict[str, str]:
        """The first value of every axis: what the figure shows."""
        first = {"role": ALL, "layer": ALL, **self.first(tables[self.table], arms)}
        return {name: _word(value) for name, value in first.items()}

    def rows(self, tables: Tables, arms: Collection[str], *, every: bool = True) -> pl.DataFrame:
        """Over seeds: `axes` as text, arm, view, null (true for its rows), x, value, low, high, floor.

        every: for each role and layer too, and not only for all matrices.
        """
        parts = [self._means(self.table, tables[self.table], arms, every, null=False)]
        if self.null is not None and "nulls" in tables:
            parts.append(
                self._means("nulls", self.null(null_values.unturned_null(tables["nulls"])), arms, every, null=True)
            )
        runs = pl.concat(pl.collect_all(parts))
        if self.log:
            runs = runs.filter(pl.col("value") > 0)
        keys = (*self.axes, "null", "arm", "view")
        role = pl.col("role").replace_strict({ALL: -1, **{role: n for n, role in enumerate(PROJECTIONS)}})
        pooled = _pool_seeds(runs.sort(role, *keys[1:], "seed", self.x), keys, self.x)
        return pooled.with_columns(_text(pl.col(name), runs.schema[name]).alias(name) for name in self.axes)

    def numbers(self, rows: pl.DataFrame, first: Mapping[str, str]) -> pl.DataFrame:
        """Of `rows` what the figure shows first, without the null: columns arm, view, x, value, low, high."""
        chosen = rows.filter(*(pl.col(name) == value for name, value in first.items()), ~pl.col("null"))
        return chosen.select("arm", "view", self.x, "value", "low", "high")

    def _means(self, name: str, frame: pl.LazyFrame, arms: Collection[str], every: bool, *, null: bool) -> pl.LazyFrame:
        """Of every run, the mean over the matrices of each choice: axes, null, arm, view, seed, x, value, floor."""
        rows = arm_rows({name: frame}, name, arms).filter(*(pl.col(key) == value for key, value in self.where))
        rows = rows.with_columns(final=final_step(name))
        if "step_other" in frame.collect_schema():
            rows = rows.filter(pl.col("step_other") == pl.col("final"))
        share, last = 100 * pl.col("step") / pl.col("final"), pl.col("step") == pl.col("final")
        if self.listed:
            rows = rows.filter(last, pl.col(self.column).list.len() > 0)
            rows = rows.with_columns(index=pl.int_ranges(1, pl.col(self.column).list.len() + 1))
            rows = rows.explode(self.column, INDEX)
        else:
            rows = rows.with_columns(progress=share)
            if self.table == "locking":  # 1 by definition
                rows = rows.filter(~last)
        rows = rows.filter(
            pl.col("step") > 0, pl.col(self.column).is_not_null(), *[pl.col(cut).is_not_null() for cut in self.cuts]
        )
        parts = {"role": [pl.lit(ALL)], "layer": [pl.lit(-1, pl.Int64())]}
        if every:
            parts = {"role": [pl.col("role"), *parts["role"]], "layer": [_depth(), *parts["layer"]]}
        rows = rows.with_columns(
            role=pl.concat_list(parts["role"]),
            layer=pl.concat_list(parts["layer"]),
            chance=pl.lit(None, pl.Float64()) if self.floor is None or null else pl.col(self.floor).cast(pl.Float64()),
        )
        keys = (*self.axes, "arm", "view", "seed", self.x)
        means = (
            rows.explode("role")
            .explode("layer")
            .group_by(keys)
            .agg(
                value=self.scale * weighted_mean(self.column, "matrix", self.weight),
                floor=self.scale * pl.col("chance").mean(),
            )
        )
        return means.select(*keys, "value", "floor", null=pl.lit(null))


def bind_field(name: str, values: Iterable[str], first: str) -> alt.Parameter:
    """A field of the page in which one of `values` is chosen."""
    options = list(values)
    return alt.param(
        name=f"pick_{name}", value=first, bind=alt.binding_select(options=options, name=f"{TITLES[name]} ")
    )


def filter_expression(names: Iterable[str]) -> str:
    """The Vega expression that filters the selected rows."""
    return " && ".join(f"datum.{name} === pick_{name}" for name in names)


def _pool_seeds(runs: pl.DataFrame, keys: tuple[str, ...], x: str) -> pl.DataFrame:
    """The mean and the ends over seeds at the places of any, as far as each reaches, as in `series.pooled`."""
    series: dict[tuple[Any, ...], list[tuple[Any, Any, Any]]] = {}
    grouped = runs.group_by((*keys, "seed"), maintain_order=True).agg(x, "value", pl.col("floor").mean())
    for *group, _, places, values, floor in grouped.iter_rows():
        series.setdefault(tuple(group), []).append((places, values, floor))
    parts = []
    for group, seeds in series.items():
        begin, end = max(places[0] for places, _, _ in seeds), min(places[-1] for places, _, _ in seeds)
        grid = np.unique([place for places, _, _ in seeds for place in places if begin <= place <= end])
        read = np.array([np.interp(grid, places, values) for places, values, _ in seeds])
        if grid.size:
            parts.append((*group, seeds[0][2], grid, read.mean(axis=0), read.min(axis=0), read.max(axis=0)))
    schema = {name: runs.schema[name] for name in keys} | {"floor": pl.Float64()}
    schema |= {name: pl.List(kind) for name, kind in ({x: pl.Float64()} | ROWS).items()}
    return pl.DataFrame(parts, schema=schema, orient="row").explode(x, *ROWS).cast({x: runs.schema[x]})


def _depth() -> pl.Expr:
    """The layer, or the first layer of its range where there are many."""
    count = pl.col("layer").max() + 1
    width = (count / DEPTHS).ceil().cast(pl.Int64())
    return pl.when(count <= DEPTHS).then(pl.col("layer")).otherwise(pl.col("layer") // width * width)


def _text(values: pl.Expr, kind: pl.DataType) -> pl.Expr:
    return values.map_elements(_word, return_dtype=pl.String()) if kind != pl.String() else values


def _word(value: Any) -> str:
    return ALL if value == -1 else f"{value:g}" if isinstance(value, float) else str(value)


def _hill_nulls(nulls: pl.LazyFrame) -> pl.LazyFrame:
    return nulls.explode("hill_k", "hill").with_columns(k=pl.col("hill_k"))


def _locking_nulls(nulls: pl.LazyFrame) -> pl.LazyFrame:
    return nulls.with_columns(k=pl.col("similarity_k"), side=pl.lit("input"), similarity=pl.col("similarity_input"))


def _widest(rows: pl.LazyFrame, arms: Collection[str]) -> dict[str, Any]:
    ends = arm_rows({"rotation": rows}, "rotation", arms).with_columns(final=final_step("rotation"))
    ends = ends.filter(pl.col("step") == pl.col("final"), pl.col("side") == "input")
    return {
        "side": "input",
        "k": rows_at_largest_cut(ends, "k", "mean_deg").select(pl.col("k").first()).collect().item(),
    }


UNCHANGED = Quantity(
    table="update_support",
    column="unchanged",
    title="unchanged weights (%)",
    where=(("scope", "projection"),),
    weight="numel",
    scale=100.0,
    domain=(0, 100),
)
ANGLES = Quantity(
    table="rotation",
    column="angles_deg",
    title="principal angle (degrees)",
    cuts=("side", "k"),
    first=_widest,
    log=True,
    listed=True,
)
DRIFT = Quantity(table="spectral_drift", column="nss", title="spectral drift (NSS, no unit)", log=True)
OVERLAP = Quantity(
    table="localization",
    column="overlap",
    title="changed weights in the mask (%)",
    cuts=("mask", "alpha"),
    first=lambda rows, arms: {"mask": MASK, "alpha": MASKED},
    floor="alpha",
    scale=100.0,
)
STABLE_RANK = Quantity(
    table="update_norm", column="stable_rank", title="stable rank of the update", null=lambda nulls: nulls
)
NORM = Quantity(table="update_norm", column="frobenius", title="Frobenius norm (weight units)", log=True)
HILL = Quantity(
    table="hill",
    column="hill",
    title="Hill tail index",
    cuts=("k",),
    first=lambda rows, arms: {"k": shared_cut("hill", rows, "k", arms)},
    null=_hill_nulls,
)
LOCKING = Quantity(
    table="locking",
    column="similarity",
    title="Sim_k to the final step",
    cuts=("side", "k"),
    first=lambda rows, arms: {"side": "input", "k": null_values.SIMILARITY_K},
    null=_locking_nulls,
    floor="chance",
    domain=(0, 1),
)
