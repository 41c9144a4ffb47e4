"""The charts, drawn from tables of one study, and their rendering to SVG and PNG without a browser.

Lines are means over seeds of the mean over projection matrices; bands and whiskers span the lowest and highest seed.
Colours, dashes and point shapes of an arm are the same in every chart (`arms.ARMS`).
"""

from typing import Any

import altair as alt
import polars as pl
import vl_convert

from pipelines.report.arms import ARMS, Arm
from pipelines.report.metrics import PROJECTIONS
from pipelines.report.series import by_role, profile, progress

# Sizes in px. Text stays readable when a chart is shown at half its width.
PANEL_WIDTH, PANEL_HEIGHT, TEXT_SIZE = 250, 230, 15
INK, GRID, PAPER = "#1a1a1a", "#e3e3e3", "#ffffff"
VIEW_TITLES = {"bf16": "bf16 (what is served)", "master": "master (stored dtype)"}
PERCENT_OF_RUN = "training progress (% of the run's steps)"

Chart = alt.Chart | alt.LayerChart | alt.FacetChart | alt.HConcatChart


def stable_rank(update_spectrum: pl.LazyFrame) -> Chart:
    """||dW||_F^2 / ||dW||_2^2 of the update over training."""
    return curves(progress("update_spectrum", update_spectrum, "stable_rank"), "stable rank of the update")


def frobenius_norm(update_spectrum: pl.LazyFrame) -> Chart:
    """||W_t - W0||_F over training, log axis."""
    return curves(progress("update_spectrum", update_spectrum, "frobenius"), "Frobenius norm (weight units)", log=True)


def hill(hill: pl.LazyFrame) -> Chart:
    """Hill index of the update's singular values over training, at the smallest k present."""
    return curves(progress("hill", hill, "hill", cut="k"), "Hill tail index")


def locking(locking: pl.LazyFrame) -> Chart:
    """Sim_16 between the update's top-16 input subspace at each step and at the last, with the chance level."""
    rows = locking.filter(pl.col("side") == "input", pl.col("k") == 16)
    chance = rows.select(pl.col("chance").mean()).collect().item()
    return curves(progress("locking", rows, "similarity"), "Sim_16 to the final step", floor=chance, domain=(0, 1))


def angle_profiles(rotation: pl.LazyFrame) -> Chart:
    """Principal angles between the top-k input subspaces of W0 and the final weights, by index, log axis."""
    return curves(
        profile(rotation), "principal angle (degrees)", x=("index", "index of the angle"), log=True, points=False
    )


def roles(update_support: pl.LazyFrame, rotation: pl.LazyFrame) -> Chart:
    """Final unchanged share and mean rotation in the bf16 view, by role of the matrix."""
    unchanged = by_role("update_support", update_support, "unchanged", weight="numel")
    percent = unchanged.with_columns(pl.col("value", "low", "high") * 100)
    turned = by_role("rotation", rotation, "mean_deg")
    panels = alt.hconcat(bars(percent, "unchanged weights (%)"), bars(turned, "mean rotation (degrees)"))
    return styled(panels)


def curves(
    data: pl.DataFrame,
    title: str,
    *,
    x: tuple[str, str] = ("progress", PERCENT_OF_RUN),
    log: bool = False,
    points: bool = True,
    floor: float | None = None,
    domain: tuple[float, float] | None = None,
) -> Chart:
    """One panel per view on shared axes: a line per arm and a band over seeds; `floor` draws a reference line."""
    data = data.with_columns(view=pl.col("view").replace(VIEW_TITLES), floor=pl.lit(floor, pl.Float64()))
    column, words = x
    reach = alt.Scale(domain=(0, 100)) if column == "progress" else alt.Undefined
    along = alt.X(f"{column}:Q", title=words, scale=reach)
    scale = alt.Scale(type="log" if log else "linear", zero=not log, domain=domain or alt.Undefined)
    base = alt.Chart().encode(x=along)
    value = alt.Y("value:Q", title=title, scale=scale)
    band = base.mark_area(opacity=0.18).encode(
        y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q", color=color(data)
    )
    layers = [band, base.mark_line(strokeWidth=2.2).encode(y=value, color=color(data), strokeDash=dashes(data))]
    if points:
        layers.append(
            base.mark_point(size=55, filled=True, opacity=1).encode(y=value, color=color(data), shape=shapes(data))
        )
    if floor is not None:
        rule = alt.Chart().mark_rule(stroke="#555555", strokeDash=[3, 3])
        layers.append(rule.encode(y=alt.Y("mean(floor):Q", title=title, scale=scale)))
    layered = alt.layer(*layers, data=data).properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)
    header = alt.Header(title=None, labelFontSize=TEXT_SIZE, labelColor=INK)
    return styled(layered.facet(column=alt.Column("view:N", header=header)))


def bars(data: pl.DataFrame, title: str) -> Chart:
    """Grouped bars by role, one per arm, whiskers from the lowest to the highest seed."""
    across = alt.X("role:N", sort=list(PROJECTIONS), title="role of the matrix", axis=alt.Axis(labelAngle=-45))
    offset = alt.XOffset("arm:N", sort=[arm.label for arm in present(data)])
    base = alt.Chart(data).encode(x=across, xOffset=offset)
    bar = base.mark_bar().encode(y=alt.Y("value:Q", title=title), color=color(data))
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


def present(data: pl.DataFrame) -> list[Arm]:
    """The arms that `data` has, in the fixed order, so that legends name no absent arm."""
    return [arm for arm in ARMS if arm.label in set(data["arm"])]


def styled(chart: Any) -> Any:
    """The house look: white paper (legible on light and dark pages), quiet grid, legend above."""
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
            orient="top", labelFontSize=TEXT_SIZE, labelColor=INK, symbolSize=110, symbolOpacity=1, symbolStrokeWidth=0
        )
        .configure_view(stroke=None)
    )


def render_svg(chart: Chart) -> str:
    """`chart` as one <svg> element."""
    return vl_convert.vegalite_to_svg(chart.to_json())


def render_png(chart: Chart, scale: float = 2.0) -> bytes:
    """`chart` as PNG bytes, `scale` device pixels per px."""
    return vl_convert.vegalite_to_png(chart.to_json(), scale=scale)
