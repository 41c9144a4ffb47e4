"""Charts have the data of every arm, in its look and by its name, and render without a browser."""

import re

import polars as pl
import pytest
import vl_convert

from pipelines.report.captions import FIGURES
from pipelines.report.figures import at_first, render_png
from pipelines.report.palette import arm_looks
from pipelines.report.panels import NULL
from pipelines.statistics.samples import fill_tables
from pipelines.statistics.series import angle_profile, by_role, pool_seeds, progress_rows, shared_cut
from pipelines.studies.story import Story
from tests.pipelines.planted import STORY

CORE = STORY.core
NAMES = pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.key)


def render_svg(chart) -> str:
    return vl_convert.vegalite_to_svg(at_first(chart.to_dict(validate=False)))


def words(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@NAMES
def test_every_arm_is_drawn_in_its_colour_and_named(tiny, figure):
    svg = render_svg(figure.draw(STORY, fill_tables(tiny), CORE))
    assert svg.startswith("<svg")
    for arm in arm_looks(STORY, CORE):
        assert arm.color.lower() in svg.lower()
        assert arm.label in words(svg)


@NAMES
def test_arms_that_nobody_described_are_drawn_and_named_all_the_same(tiny, figure):
    """Other names, no labels, no colours."""
    other = {f"tiny.{arm}": f"tiny.mine-{place}" for place, arm in enumerate(CORE)}
    tables = {
        name: rows.with_columns(pl.col("recipe").replace(other)) if "recipe" in rows.collect_schema() else rows
        for name, rows in fill_tables(tiny).items()
    }
    keys = [name.removeprefix("tiny.") for name in other.values()]
    story = Story(core=tuple(keys))
    svg = render_svg(figure.draw(story, tables, keys))
    for arm in arm_looks(story, keys):
        assert arm.color in svg and arm.key in words(svg)
    (numbers, *_) = figure.numbers(story, tables, keys).values()
    assert set(numbers["arm"]) == set(keys)


@NAMES
def test_absent_arms_are_not_in_the_legend(smollm, figure):
    named = words(render_svg(figure.draw(STORY, fill_tables(smollm), CORE)))
    assert "sft-matched" not in named and "RLVR" in named


@NAMES
def test_a_chart_is_valid_and_says_what_is_on_its_axes(tiny, figure):
    spec = figure.draw(STORY, fill_tables(tiny), CORE).to_dict(validate=True)
    panels = spec["concat"]
    assert spec["columns"] == len(panels) == (1 if figure.key == "overlap" else 2)  # planted in bf16 alone
    for panel in panels:
        titles = {
            channel: layer["encoding"][channel]["title"]
            for layer in panel["layer"]
            for channel in ("x", "y")
            if channel in layer.get("encoding", ())
        }
        assert all(titles.values()) and set(titles) == {"x", "y"}


@pytest.mark.parametrize("figure", [figure for figure in FIGURES if figure.null], ids=lambda figure: figure.key)
def test_the_null_is_drawn_and_explained_where_there_is_one(tiny, figure):
    tables = fill_tables(tiny)
    without = tables | {"nulls": tables["nulls"].head(0)}
    drawn, bare = (render_svg(figure.draw(STORY, rows, CORE)) for rows in (tables, without))
    assert NULL in words(drawn) and NULL not in words(bare)
    assert drawn.count('stroke-dasharray="4,3"') == len(CORE) + 1  # a line per arm, in one panel, and the legend's
    assert 'stroke-dasharray="4,3"' not in bare
    sentence = figure.null_sentence(STORY, tables, CORE)
    assert sentence is not None and "measured" in sentence
    assert figure.null_sentence(STORY, without, CORE) is None


def test_a_figure_without_rows_of_its_arms_is_not_measured(tiny):
    assert all(figure.is_measured(fill_tables(tiny), CORE) for figure in FIGURES)
    assert not any(figure.is_measured(fill_tables(tiny), ["nobody"]) for figure in FIGURES)
    assert not any(figure.is_measured(fill_tables({}), CORE) for figure in FIGURES)


def test_a_chart_renders_to_png(tiny):
    png = render_png(FIGURES[0].draw(STORY, fill_tables(tiny), CORE), scale=1.0)
    assert png.startswith(b"\x89PNG")


def test_progress_is_the_mean_with_the_range_over_seeds(tiny):
    series = pool_seeds(progress_rows("update_norm", tiny["update_norm"], "stable_rank", CORE))
    last = series.filter(pl.col("arm") == "rlvr", pl.col("view") == "bf16", pl.col("progress") == 100).row(
        0, named=True
    )
    assert last["value"] == pytest.approx(3.8)
    assert (last["low"], last["high"]) == (pytest.approx(3.8 * 0.998), pytest.approx(3.8 * 1.002))
    assert series["progress"].min() == 5


def test_hill_takes_the_smallest_cut_that_all_matrices_share(tiny):
    # k = 6 exists for one shape alone (9.0), k = 16 for all (2.5), k = 32 is larger (3.5).
    assert shared_cut("hill", tiny["hill"], "k", CORE) == 16
    assert shared_cut("hill", tiny["hill"].head(0), "k", CORE) is None


def test_profile_runs_over_the_indices_of_the_largest_cut(smollm):
    angles = angle_profile(smollm["rotation"], CORE).filter(pl.col("arm") == "opd", pl.col("view") == "bf16")
    assert angles["index"].to_list() == list(range(1, 65))
    assert angles["value"].is_sorted()
    assert angles["value"].mean() == pytest.approx(0.011)  # planted: the angles average to the mean rotation


def test_roles_keep_matrices_apart(tiny):
    bars = by_role("rotation", tiny["rotation"], "mean_deg", CORE).filter(pl.col("arm") == "sft")
    assert dict(bars.select("role", "value").iter_rows()) == pytest.approx({"q": 11.7, "k": 14.3, "gate": 13.0})
