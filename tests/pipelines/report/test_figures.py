"""Charts have the data of every arm, in its colour, and render without a browser."""

import polars as pl
import pytest

from pipelines.report.arms import ARMS
from pipelines.report.captions import FIGURES
from pipelines.report.figures import NULL, render_png, render_svg
from pipelines.statistics.series import by_role, pooled, profile, progress, shared_cut


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.key)
def test_every_arm_is_drawn_in_its_colour(tiny, figure):
    svg = render_svg(figure.draw(*figure.takes(tiny)))
    assert svg.startswith("<svg")
    for arm in ARMS:
        assert arm.color.lower() in svg.lower()
        assert f">{arm.label}</text>" in svg  # the legend


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.key)
def test_absent_arms_are_not_in_the_legend(smollm, figure):
    svg = render_svg(figure.draw(*figure.takes(smollm)))
    assert "sft-matched" not in svg
    assert ">RLVR</text>" in svg


@pytest.mark.parametrize("figure", [figure for figure in FIGURES if figure.null], ids=lambda figure: figure.key)
def test_the_null_is_drawn_and_explained_where_there_is_one(tiny, figure):
    whole = render_svg(figure.draw(*figure.takes(tiny)))
    without = render_svg(figure.draw(*figure.takes({**tiny, "nulls": tiny["nulls"].head(0)})))
    assert f">{NULL}</text>" in whole and NULL not in without
    assert whole.count('stroke-dasharray="4,3"') == len(ARMS) + 1  # a line per arm, in one panel, and the legend's
    assert 'stroke-dasharray="4,3"' not in without


def test_png_is_png(tiny):
    figure = FIGURES[0]
    assert render_png(figure.draw(*figure.takes(tiny)), scale=1.0).startswith(b"\x89PNG")


def test_progress_is_the_mean_with_the_range_over_seeds(tiny):
    series = pooled(progress("update_norm", tiny["update_norm"], "stable_rank"))
    last = series.filter(pl.col("arm") == "RLVR", pl.col("view") == "bf16", pl.col("progress") == 100).row(
        0, named=True
    )
    assert last["value"] == pytest.approx(3.8)
    assert (last["low"], last["high"]) == (pytest.approx(3.8 * 0.998), pytest.approx(3.8 * 1.002))
    assert series["progress"].min() == 5


def test_hill_takes_the_smallest_cut_that_all_matrices_share(tiny):
    # k = 6 exists for one shape alone (9.0), k = 16 for all (2.5), k = 32 is larger (3.5).
    assert shared_cut("hill", tiny["hill"], "k") == 16
    assert shared_cut("hill", tiny["hill"].head(0), "k") is None


def test_profile_runs_over_the_indices_of_the_largest_cut(smollm):
    angles = profile(smollm["rotation"]).filter(pl.col("arm") == "OPD", pl.col("view") == "bf16")
    assert angles["index"].to_list() == list(range(1, 65))
    assert angles["value"].is_sorted()
    assert angles["value"].mean() == pytest.approx(0.011)  # planted: the angles average to the mean rotation


def test_roles_keep_matrices_apart(tiny):
    bars = by_role("rotation", tiny["rotation"], "mean_deg").filter(pl.col("arm") == "SFT")
    assert dict(bars.select("role", "value").iter_rows()) == pytest.approx({"q": 11.7, "k": 14.3, "gate": 13.0})
