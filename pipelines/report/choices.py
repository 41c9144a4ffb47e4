"""What a reader chooses of a figure: the role, the layers and the cuts, as numbers that the page's script draws.

The script (`page.js`) has the mean over the chosen matrices of every run, and takes the mean and the ends over seeds as
the figure itself does (`series.pooled`). Without a script the figure shows its first choice.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import polars as pl

from pipelines.paper.palette import style
from pipelines.report.adaptive import painted
from pipelines.report.arms import CORE, Arm, label
from pipelines.report.figures import MASK, MASKED, VIEW_TITLES
from pipelines.statistics import beside
from pipelines.statistics.metrics import PROJECTIONS
from pipelines.statistics.samples import final_step, largest, mean, table
from pipelines.statistics.series import over_seeds, pooled, shared_cut

ALL, DEPTHS = "all", 6  # more layers than this are offered in as many ranges
TITLES = {"role": "role", "layer": "layers", "k": "cut k", "side": "side", "mask": "mask", "alpha": "share masked"}
DIGITS = 3
First = Callable[
    [pl.LazyFrame, Collection[str]], Mapping[str, Any]
]  # of the table and the arms: each cut's first value


@dataclass(frozen=True, kw_only=True)
class Choice:
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

    def starts(self, tables: Mapping[str, pl.LazyFrame], arms: Collection[str] = CORE) -> dict[str, str]:
        """The first value of every axis: what the figure shows."""
        first = {"role": ALL, "layer": ALL, **self.first(tables[self.table], arms)}
        return {name: _word(value) for name, value in first.items()}

    def form(self, key: str, rows: pl.DataFrame, first: Mapping[str, str]) -> str:
        """The fields to choose with and the numbers, for the figure with the anchor `key`."""
        fields = "".join(_field(name, rows[name], first[name]) for name in self.axes)
        data = json.dumps(self._data(rows), separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")
        return (
            f'<form class="choices" hidden data-for="{key}"><fieldset><legend>Choose the matrices</legend>{fields}'
            f'</fieldset><output></output></form><script type="application/json" id="{key}-data">{data}</script>'
        )

    def numbers(self, rows: pl.DataFrame, first: Mapping[str, str]) -> dict[str, pl.DataFrame]:
        """What the figure shows, by the title of its axis: arm (label), view, place along it, value, low, high."""
        chosen = [pl.col(name) == value for name, value in first.items()]
        place = "index" if self.listed else "progress"
        runs = rows.filter(*chosen, ~pl.col("null")).select("arm", "seed", "view", pl.col("x").alias(place), "value")
        return {self.title: over_seeds(runs.lazy(), "view", place) if self.listed else pooled(runs)}

    @property
    def axes(self) -> tuple[str, ...]:
        return ("role", "layer", *self.cuts)

    def rows(self, tables: Mapping[str, pl.LazyFrame], arms: Collection[str] = CORE) -> pl.DataFrame:
        """`axes` as text, arm, seed, view, null, x, value, floor: the mean of every run over its matrices."""
        parts = [self._means(self.table, tables[self.table], arms, null=False)]
        if self.null is not None and "nulls" in tables:
            parts.append(self._means("nulls", self.null(beside.unturned(tables["nulls"])), arms, null=True))
        found = pl.concat(pl.collect_all(parts))
        sort = pl.col("role").replace_strict({ALL: -1, **{role: n for n, role in enumerate(PROJECTIONS)}})
        texts = [_text(pl.col(name), found.schema[name]).alias(name) for name in self.axes]
        return found.sort(sort, *self.axes[1:], "null", "arm", "view", "seed", "x").with_columns(texts)

    def _means(self, name: str, frame: pl.LazyFrame, arms: Collection[str], *, null: bool) -> pl.LazyFrame:
        rows = table({name: frame}, name, arms).filter(*(pl.col(key) == value for key, value in self.where))
        rows = rows.with_columns(final=final_step(name))
        if "step_other" in frame.collect_schema():
            rows = rows.filter(pl.col("step_other") == pl.col("final"))
        share, last = 100 * pl.col("step") / pl.col("final"), pl.col("step") == pl.col("final")
        x = share
        if self.listed:
            rows = rows.filter(last, pl.col(self.column).list.len() > 0)
            rows = rows.with_columns(index=pl.int_ranges(1, pl.col(self.column).list.len() + 1))
            rows, x = rows.explode(self.column, "index"), pl.col("index").cast(pl.Float64)
        elif self.table == "locking":
            rows = rows.filter(~last)
        rows = rows.filter(
            pl.col("step") > 0, pl.col(self.column).is_not_null(), *[pl.col(c).is_not_null() for c in self.cuts]
        )
        rows = rows.with_columns(
            x=x,
            role=pl.concat_list(pl.col("role"), pl.lit(ALL)),
            layer=pl.concat_list(_depth(), pl.lit(-1, pl.Int64())),
            chance=pl.lit(None, pl.Float64()) if self.floor is None or null else pl.col(self.floor).cast(pl.Float64()),
        )
        rows = rows.explode("role").explode("layer")
        keys = (*self.axes, "arm", "seed", "view", "x")
        found = rows.group_by(keys).agg(
            value=self.scale * mean(self.column, "matrix", self.weight), floor=self.scale * pl.col("chance").mean()
        )
        if null:  # which is drawn as a line without a band
            keys = tuple(key for key in keys if key != "seed")
            found = found.group_by(keys).agg(pl.col("value").sort_by("seed").mean(), pl.col("floor").first())
            found = found.with_columns(seed=pl.lit(0, pl.Int64()))
        return found.select(*self.axes, "arm", "seed", "view", "x", "value", "floor", null=pl.lit(null))

    def _data(self, rows: pl.DataFrame) -> dict[str, Any]:
        """Axes, looks and, by choice, [arm, view, seed, null, places, values] of every run."""
        keys = sorted(set(rows["arm"]), key=_order)
        index = {arm: place for place, arm in enumerate(keys)}
        views = [view for view in VIEW_TITLES if view in set(rows["view"])]
        places: dict[tuple[float, ...], int] = {}
        series: dict[str, list[list[Any]]] = {}
        floors: dict[str, float] = {}
        if self.log:
            rows = rows.filter(pl.col("value") > 0)
        group = (*self.axes, "null", "arm", "view", "seed")
        runs = rows.group_by(group, maintain_order=True).agg("x", "value", pl.col("floor").mean())
        for *chosen, null, arm, view, seed, x, values, floor in runs.iter_rows():
            where = places.setdefault(tuple(round(place, 3) for place in x), len(places))
            name = "|".join(chosen)
            told = [index[arm], views.index(view), seed, int(null), where, [_short(value) for value in values]]
            series.setdefault(name, []).append(told)
            if floor is not None:
                floors[name] = _short(floor)
        arms = [style(arm) for arm in keys]
        return {
            "arms": [_look(arm) for arm in arms],
            "views": [VIEW_TITLES[view] for view in views],
            "title": self.title,
            "along": "index of the angle" if self.listed else "progress (% of steps, sqrt axis)",
            "progress": not self.listed,
            "log": self.log,
            "domain": self.domain,
            "places": [list(grid) for grid in places],
            "series": series,
            "floors": floors,
        }


def _field(name: str, values: pl.Series, first: str) -> str:
    options = "".join(
        f'<option value="{escape(value)}"{" selected" if value == first else ""}>{escape(value)}</option>'
        for value in values.unique(maintain_order=True)
    )
    return f'<label>{TITLES[name]} <select name="{name}" autocomplete="off">{options}</select></label>'


def _depth() -> pl.Expr:
    """The layer, or the first layer of its range where there are many."""
    count = pl.col("layer").max() + 1
    width = (count / DEPTHS).ceil().cast(pl.Int64())
    return pl.when(count <= DEPTHS).then(pl.col("layer")).otherwise(pl.col("layer") // width * width)


def _text(values: pl.Expr, kind: pl.DataType) -> pl.Expr:
    return values.map_elements(_word, return_dtype=pl.String()) if kind != pl.String() else values


def _word(value: Any) -> str:
    return ALL if value == -1 else f"{value:g}" if isinstance(value, float) else str(value)


def _order(arm: str) -> tuple[bool, int, str]:
    return (arm in CORE, CORE.index(arm) if arm in CORE else 0, arm)


def _look(arm: Arm) -> dict[str, Any]:
    return {"label": label(arm.key), "color": painted(arm.color), "dash": list(arm.dash), "shape": arm.shape}


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _hill_nulls(nulls: pl.LazyFrame) -> pl.LazyFrame:
    return nulls.explode("hill_k", "hill").with_columns(k=pl.col("hill_k"))


def _locking_nulls(nulls: pl.LazyFrame) -> pl.LazyFrame:
    return nulls.with_columns(k=pl.col("similarity_k"), side=pl.lit("input"), similarity=pl.col("similarity_input"))


def _widest(rows: pl.LazyFrame, arms: Collection[str]) -> dict[str, Any]:
    ends = table({"rotation": rows}, "rotation", arms).with_columns(final=final_step("rotation"))
    ends = ends.filter(pl.col("step") == pl.col("final"), pl.col("side") == "input")
    return {"side": "input", "k": largest(ends, "k", "mean_deg").select(pl.col("k").first()).collect().item()}


UNCHANGED = Choice(
    table="update_support",
    column="unchanged",
    title="unchanged weights (%)",
    where=(("scope", "projection"),),
    weight="numel",
    scale=100.0,
    domain=(0, 100),
)
ANGLES = Choice(
    table="rotation",
    column="angles_deg",
    title="principal angle (degrees)",
    cuts=("side", "k"),
    first=_widest,
    log=True,
    listed=True,
)
DRIFT = Choice(table="spectral_drift", column="nss", title="spectral drift (NSS, no unit)", log=True)
OVERLAP = Choice(
    table="localization",
    column="overlap",
    title="in the mask (%)",
    cuts=("mask", "alpha"),
    first=lambda rows, arms: {"mask": MASK, "alpha": MASKED},
    floor="alpha",
    scale=100.0,
)
STABLE_RANK = Choice(
    table="update_norm", column="stable_rank", title="stable rank of the update", null=lambda nulls: nulls
)
NORM = Choice(table="update_norm", column="frobenius", title="Frobenius norm (weight units)", log=True)
HILL = Choice(
    table="hill",
    column="hill",
    title="Hill tail index",
    cuts=("k",),
    first=lambda rows, arms: {"k": shared_cut("hill", rows, "k", arms)},
    null=_hill_nulls,
)
LOCKING = Choice(
    table="locking",
    column="similarity",
    title="Sim_k to the final step",
    cuts=("side", "k"),
    first=lambda rows, arms: {"side": "input", "k": beside.SIMILARITY_K},
    null=_locking_nulls,
    floor="chance",
    domain=(0, 1),
)
