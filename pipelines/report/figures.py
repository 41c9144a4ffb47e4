"""The charts, drawn from tables of one study, and their rendering to SVG and PNG without a browser.

Lines are means over seeds of the mean over projection matrices; bands and whiskers span the lowest and highest seed.
Colours, dashes and point shapes of an arm are the same in every chart (`arms.ARMS`).
"""

from collections.abc import Collection, Mapping
from typing import Any

import altair as alt
import polars as pl
import vl_convert

from pipelines.paper.palette import style
from pipelines.report.arms import ARMS, CORE, Arm
from pipelines.report.markup import TOLD
from pipelines.statistics import beside
from pipelines.statistics.metrics import PROJECTIONS
from pipelines.statistics.numbers import short
from pipelines.statistics.series import by_role, pooled, profile, progress

# Sizes in px. Text stays readable when a chart is shown at half its width.
PANEL_WIDTH, PANEL_HEIGHT, TEXT_SIZE = 250, 230, 15
INK, QUIET, GRID, PAPER = "#1a1a1a", "#555555", "#e3e3e3", "#ffffff"
THIN, THIN_DASH = 1.4, [4, 3]
SHARES = [0, 5, 10, 25, 50, 100]  # ticks, on an axis that gives the beginning room, where most happens
VIEW_TITLES = {"bf16": "bf16 (what is served)", "master": "master (stored dtype)"}
PERCENT_OF_RUN = "progress (% of steps, sqrt axis)"
NULL = "null: final update, rescaled and rounded"

MASK, MASKED = "low_magnitude", 0.5  # the mask of W0 that is drawn over training, and the share of weights in it
WORDS = {"progress": "{:.3g} % of the run", "view": "{}", "side": "{}", "kind": "{}", "point": "{}", "map": "{}"}

Chart = alt.Chart | alt.LayerChart | alt.FacetChart | alt.HConcatChart


def unchanged(update_support: pl.LazyFrame, arms: Collection[str] = CORE) -> Chart:
    """Share of projection weights bitwise equal to W0 over training, weighted by parameter count."""
    rows = update_support.filter(pl.col("scope") == "projection")
    series = pooled(progress("update_support", rows, "unchanged", arms, weight="numel"))
    return curves(percent(series), "unchanged weights (%)", domain=(0, 100))


def stable_rank(update_norm: pl.LazyFrame, nulls: pl.LazyFrame, arms: Collection[str] = CORE) -> Chart:
    """||dW||_F^2 / ||dW||_2^2 of the update over training, beside its null."""
    both = beside.stable_rank(update_norm, nulls, arms)
    return curves(pooled(both.measured), "stable rank of the update", null=pooled(both.null))


def frobenius_norm(update_norm: pl.LazyFrame, arms: Collection[str] = CORE) -> Chart:
    """||W_t - W0||_F over training, log axis."""
    series = pooled(progress("update_norm", update_norm, "frobenius", arms))
    return curves(series, "Frobenius norm (weight units)", log=True)


def hill(hill: pl.LazyFrame, nulls: pl.LazyFrame, arms: Collection[str] = CORE) -> Chart:
    """Hill index of the update's singular values over training, at the smallest k that all share, beside its null."""
    both = beside.hill(hill, nulls, arms)
    return curves(pooled(both.measured), "Hill tail index", null=pooled(both.null))


def locking(locking: pl.LazyFrame, nulls: pl.LazyFrame, arms: Collection[str] = CORE) -> Chart:
    """Sim_16 between the update's top-16 input subspace at each step and at the last, beside its null and chance."""
    both = beside.locking(locking, nulls, arms)
    rows = locking.filter(pl.col("side") == "input", pl.col("k") == beside.SIMILARITY_K)
    chance, title = rows.select(pl.col("chance").mean()).collect().item(), "Sim_16 to the final step"
    return curves(pooled(both.measured), title, null=pooled(both.null), floor=chance, domain=(0, 1))


def angle_profiles(rotation: pl.LazyFrame, arms: Collection[str] = CORE) -> Chart:
    """Principal angles between the top-k input subspaces of W0 and the final weights, by index, log axis."""
    along = ("index", "index of the angle")
    return curves(profile(rotation, arms), "principal angle (degrees)", x=along, log=True, points=False)


def drift(spectral_drift: pl.LazyFrame, arms: Collection[str] = CORE) -> Chart:
    """Normalised shift of the whole singular spectrum over training, log axis."""
    series = pooled(progress("spectral_drift", spectral_drift, "nss", arms)).filter(pl.col("low") > 0)
    return curves(series, "spectral drift (NSS, no unit)", log=True)


def overlap(localization: pl.LazyFrame, arms: Collection[str] = CORE) -> Chart:
    """Share of the changed weights that lie in the low-magnitude mask of W0, which holds `MASKED` of them."""
    rows = localization.filter(pl.col("mask") == MASK, pl.col("alpha") == MASKED)
    series = pooled(progress("localization", rows, "overlap", arms))
    return curves(percent(series), "in the low-magnitude mask (%)", floor=100 * MASKED, beneath=True)


def roles(update_support: pl.LazyFrame, rotation: pl.LazyFrame, arms: Collection[str] = CORE) -> Chart:
    """Final unchanged share and mean rotation in the bf16 view, by role of the matrix."""
    parts = role_numbers({"update_support": update_support, "rotation": rotation}, arms)
    return styled(alt.hconcat(*[bars(rows.drop("view"), title) for title, rows in parts.items()]))


def role_numbers(tables: Mapping[str, pl.LazyFrame], arms: Collection[str] = CORE) -> dict[str, pl.DataFrame]:
    """What `roles` draws, by title: columns arm, view, role, value, low, high."""
    parts = {
        "unchanged weights (%)": percent(
            by_role("update_support", tables["update_support"], "unchanged", arms, weight="numel")
        ),
        "mean rotation (degrees)": by_role("rotation", tables["rotation"], "mean_deg", arms),
    }
    order = {role: place for place, role in enumerate(PROJECTIONS)}
    sort = pl.col("role").replace_strict(order, return_dtype=pl.Int64())
    return {title: rows.with_columns(view=pl.lit("bf16")).sort(sort, "arm") for title, rows in parts.items()}


def percent(series: pl.DataFrame) -> pl.DataFrame:
    return series.with_columns(pl.col("value", "low", "high") * 100)


def told(data: pl.DataFrame, *keys: str) -> pl.DataFrame:
    """With a column `told`: every row in words, by those of `keys` that it has, which the page shows of its mark."""
    words = []
    for row in data.iter_rows(named=True):
        place = [WORDS.get(key, key + " {}").format(row[key]) for key in keys if key in row]
        name = row["label"] if "label" in row else row["arm"]
        words.append(f"{TOLD}{', '.join([name, *place])}: {spanned(row['value'], row['low'], row['high'])}")
    return data.with_columns(told=pl.Series(words, dtype=pl.String()))


def spanned(value: float, low: float | None, high: float | None) -> str:
    """ "4.21 [4.10 to 4.30]", and the value alone where the ends are not apart."""
    if low is None or high is None or low == high:
        return short(value)
    return f"{short(value)} [{short(low)} to {short(high)}]"


def curves(
    data: pl.DataFrame,
    title: str,
    *,
    x: tuple[str, str] = ("progress", PERCENT_OF_RUN),
    log: bool = False,
    points: bool = True,
    null: pl.DataFrame | None = None,
    floor: float | None = None,
    beneath: bool = False,
    domain: tuple[float, float] | None = None,
) -> Chart:
    """One panel per view on shared axes: a line per arm and a band over seeds.

    `null` (columns of `data`) draws a thin dashed line per arm, `floor` the level of chance, with its name
    above or `beneath`.
    """
    # Layers of a facet share one table, so the null's rows stand in it with a mark of their own.
    column, words = x
    drawn = [told(data, "view", column).with_columns(series=pl.lit("measured"))]
    if null is not None and not null.is_empty():
        drawn.append(null.with_columns(told=pl.lit(None, pl.String()), series=pl.lit(NULL)))
    data = pl.concat(drawn).with_columns(view=pl.col("view").replace(VIEW_TITLES), floor=pl.lit(floor, pl.Float64()))
    along = alt.X(f"{column}:Q", title=words)
    if column == "progress":
        along = along.scale(type="sqrt", domain=(0, 100)).axis(values=SHARES, tickCount=len(SHARES), labelOverlap=False)
    scale = alt.Scale(type="log" if log else "linear", zero=not log, domain=domain or alt.Undefined)
    base = alt.Chart().transform_filter(alt.datum.series == "measured").encode(x=along)
    value = alt.Y("value:Q", title=title, scale=scale)
    band = base.mark_area(opacity=0.18).encode(
        y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q", color=color(data)
    )
    layers = [band, base.mark_line(strokeWidth=2.2).encode(y=value, color=color(data), strokeDash=dashes(data))]
    point = base.mark_point(size=32, filled=True, opacity=1 if points else 0)  # unseen ones tell as well
    point = point.encode(y=value, color=color(data), description="told:N")
    layers.append(point.encode(shape=shapes(data)) if points else point)
    if len(drawn) > 1:
        other = alt.Chart().transform_filter(alt.datum.series == NULL)
        dashed = other.mark_line(strokeDash=THIN_DASH, strokeWidth=THIN, point={"size": 16})  # at few steps
        layers.append(dashed.encode(x=along, y=value, color=color(data), opacity=explained()))
    if floor is not None:
        level = alt.Y("mean(floor):Q", title=title, scale=scale)
        layers.append(alt.Chart().mark_rule(stroke=QUIET, strokeDash=[1, 3]).encode(y=level))
        word = alt.Chart().mark_text(
            align="right", dy=11 if beneath else -9, fontSize=TEXT_SIZE - 2, color=QUIET, text="chance"
        )
        layers.append(word.encode(x=alt.XDatum(100), y=level))
    layered = alt.layer(*layers, data=data).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)
    header = alt.Header(title=None, labelFontSize=TEXT_SIZE, labelColor=INK)
    return styled(layered.facet(column=alt.Column("view:N", header=header)))


def bars(data: pl.DataFrame, title: str) -> Chart:
    """Grouped bars by role, one per arm, whiskers from the lowest to the highest seed."""
    across = alt.X("role:N", sort=list(PROJECTIONS), title="role of the matrix", axis=alt.Axis(labelAngle=-45))
    offset = alt.XOffset("arm:N", sort=[arm.label for arm in present(data)])
    base = alt.Chart(told(data, "role")).encode(x=across, xOffset=offset)
    bar = base.mark_bar().encode(description="told:N", y=alt.Y("value:Q", title=title), color=color(data))
    whisker = base.mark_rule(color=INK).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    return alt.layer(bar, whisker).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)


def color(data: pl.DataFrame) -> alt.Color:
    arms = present(data)
    scale = alt.Scale(domain=[arm.label for arm in arms], range=[arm.color for arm in arms])
    return alt.Color("arm:N", scale=scale, title=None)


def shapes(data: pl.DataFrame) -> alt.Shape:
    arms = present(data)
    scale = alt.Scale(domain=[arm.label for arm in arms], range=[arm.shape for arm in arms])
    return alt.Shape("arm:N", scale=scale, title=None)


def dashes(data: pl.DataFrame) -> alt.StrokeDash:
    arms = present(data)
    scale = alt.Scale(domain=[arm.label for arm in arms], range=[list(arm.dash) for arm in arms])
    return alt.StrokeDash("arm:N", scale=scale, title=None)


def explained() -> alt.Opacity:
    """Full opacity for the null, for the sake of a legend entry below the panels that says what it is."""
    legend = alt.Legend(
        orient="bottom",
        offset=4,
        labelLimit=0,
        symbolType="stroke",
        symbolSize=900,
        symbolDash=THIN_DASH,
        symbolStrokeColor=INK,
        symbolStrokeWidth=THIN,
    )
    return alt.Opacity("series:N", scale=alt.Scale(domain=[NULL], range=[1]), title=None, legend=legend)


def present(data: pl.DataFrame) -> list[Arm]:
    """The arms that `data` has, in the fixed order, so that legends name no absent arm; others before them."""
    labels = set(data["arm"])
    others = sorted(labels - {arm.label for arm in ARMS})
    return [*map(style, others), *(arm for arm in ARMS if arm.label in labels)]


def styled(chart: Any) -> Any:
    """The house look: white paper, quiet grid, legend above."""
    return (
        chart.configure(background=PAPER, padding=10, font="sans-serif")
        .configure_axis(
            labelFontSize=TEXT_SIZE - 1,
            titleFontSize=TEXT_SIZE,
            titleFontWeight="normal",
            labelColor=INK,
            titleColor=INK,
            gridColor=GRID,
            domainColor="#888888",
            tickColor="#888888",
            tickCount=5,
        )
        .configure_legend(
            orient="top",
            labelFontSize=TEXT_SIZE,
            labelColor=INK,
            symbolSize=110,
            symbolOpacity=1,
            symbolStrokeWidth=0,
            columnPadding=26,
        )
        .configure_view(stroke=None)
    )


def render_svg(chart: Chart) -> str:
    """`chart` as one <svg> element."""
    return vl_convert.vegalite_to_svg(chart.to_json())


def render_png(chart: Chart, scale: float = 2.0) -> bytes:
    """`chart` as PNG bytes, `scale` device pixels per px."""
    return vl_convert.vegalite_to_png(chart.to_json(), scale=scale)
