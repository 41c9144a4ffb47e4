"""The check `within_band`: what it compares with, when it warns, and that it blocks nothing."""

import dagster as dg
import polars as pl
import pytest

from assets import monitor
from assets.partitions import STUDIES, run_key
from pipelines import lake
from pipelines.runs.geometry.measuring import measure_run

TINY = STUDIES["tiny"]


def arm(name):
    return next(recipe for recipe in TINY.every_arm() if recipe.arm == name)


def check(store, name, seed=0):
    return monitor.within_band(store, TINY, arm(name), seed)


def scaled(store, name, seed, column, factor):
    """Multiply a column of a run's update_norm."""
    rows = lake.read_partition(store, "update_norm", recipe=f"tiny.{name}", seed=seed)
    lake.write(store, "update_norm", rows.with_columns(pl.col(column) * factor), recipe=f"tiny.{name}", seed=seed)


@pytest.fixture
def alike(whole, settle):
    """The whole store with the same norms at the same steps in every run of opd and opd-pg."""
    for name in ("opd", "opd-pg"):
        for seed in TINY.seeds:
            if name == "opd-pg":
                settle(whole, arm(name), seed)
                measure_run(whole, arm(name), seed, TINY.measurement, serial=True)
            rows = lake.read_partition(whole, "update_norm", recipe=f"tiny.{name}", seed=seed)
            norms = rows.with_columns(relative_norm=0.01 * pl.col("step").cast(pl.Float64()))
            lake.write(whole, "update_norm", norms, recipe=f"tiny.{name}", seed=seed)
    return whole


def test_core_arms_are_held_against_their_own_seeds_and_others_against_opd():
    assert [monitor.reference_of(TINY, arm(name)) for name in ("sft", "rlvr", "opd", "opd-pg")] == [
        "tiny.sft",
        "tiny.rlvr",
        "tiny.opd",
        "tiny.opd",
    ]


def test_without_references_it_passes_and_says_so(store, settle):
    settle(store, arm("opd"))
    found = check(store, "opd")
    assert found.passed and found.metadata["verdict"].value == "no reference yet"
    assert "there are: none" in found.metadata["reason"].value


def test_a_run_like_its_other_seeds_passes(alike):
    found = check(alike, "opd", 1)
    assert found.passed and found.severity == dg.AssetCheckSeverity.WARN
    assert found.metadata["reference"].value == "tiny.opd seed 0, tiny.opd seed 2"
    assert (found.metadata["verdict"].value, found.metadata["view"].value) == ("inside", "master")
    assert 0 < found.metadata["values_inside"].value <= found.metadata["values"].value


def test_a_run_that_left_the_band_warns_with_step_quantity_value_and_band(alike):
    scaled(alike, "opd-pg", 0, "stable_rank", 10.0)
    found = check(alike, "opd-pg")
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    assert found.metadata["reference"].value == "tiny.opd seed 0, tiny.opd seed 1, tiny.opd seed 2"
    assert found.metadata["verdict"].value == "left at step 4: stable_rank"
    shown = str(found.metadata["left"].value)
    assert shown.splitlines()[0] == "| step | view | quantity | value | low | high |"
    assert "| 4 | master | stable_rank |" in shown


def test_at_norms_that_no_reference_reached_only_the_norm_is_judged(alike):
    scaled(alike, "opd-pg", 0, "relative_norm", 1e6)
    found = check(alike, "opd-pg")
    # At the same step the norm is judged still, and a million times too large.
    assert not found.passed and str(found.metadata["verdict"].value).endswith("relative_norm")
    assert "stable_rank" not in found.metadata["left"].value


def test_a_model_of_another_size_has_no_reference(alike, monkeypatch):
    from pipelines.runs.geometry import monitor as runs

    watched = runs.watch_run

    def smaller(store, recipe, *rest, **named):
        run = watched(store, recipe, *rest, **named)
        if recipe == "tiny.opd-pg":
            run.shapes["model.layers.0.self_attn.q_proj"] = (12, 20)
        return run

    monkeypatch.setattr(runs, "watch_run", smaller)
    found = check(alike, "opd-pg")
    assert found.passed and found.metadata["verdict"].value == "no reference yet"
    assert "a band holds for one model size" in found.metadata["reason"].value


@pytest.mark.parametrize("left", [False, True])
def test_the_geometry_of_a_run_carries_it_and_goes_on(alike, execute, left):
    if left:
        for seed in (1, 2):
            scaled(alike, "opd", seed, "stable_rank", 1e6)  # a band of two is wide: it finds next to nothing else
    result = execute("runs", run_key("tiny.opd", 0))
    found = {one.check_name: one for one in result.get_asset_check_evaluations()}["within_band"]
    assert result.success and found.passed is not left
    assert found.asset_key == dg.AssetKey("update_norm") and not found.blocking
