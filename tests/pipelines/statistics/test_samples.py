"""One number per run: the right rows, the right step, the right mean."""

from dataclasses import replace

import polars as pl
import pytest

from pipelines.statistics.metrics import (
    ACCURACY,
    PRINCIPAL,
    ROTATION,
    SIMILARITY,
    STABLE_RANK,
    STABLE_RANK_CHANGE,
    UNCHANGED,
)
from pipelines.statistics.samples import collect_samples
from tests.pipelines.planted import STORY


def value(metric, tables, arm="opd", seed=0) -> float:
    frame = collect_samples([metric], tables, STORY.core)[metric].filter(pl.col("arm") == arm, pl.col("seed") == seed)
    return frame["value"].item()


def test_unchanged_is_weighted_by_parameters_and_leaves_out_the_embedding(tiny):
    lifted = pl.when(pl.col("role") == "gate").then(0.5).when(pl.col("role") == "embed").then(1.0).otherwise(0.0)
    tables = {"update_support": tiny["update_support"].with_columns(unchanged=lifted)}
    assert value(UNCHANGED, tables) == pytest.approx(0.5 * 300 / 500)


def test_other_metrics_are_unweighted(tiny):
    lifted = pl.when(pl.col("role") == "gate").then(30.0).when(pl.col("role") == "embed").then(1e9).otherwise(3.0)
    tables = {"rotation": tiny["rotation"].with_columns(mean_deg=lifted)}
    assert value(ROTATION["bf16"], tables) == pytest.approx(12.0)


def test_the_other_weighting_of_a_metric(tiny):
    lifted = pl.when(pl.col("role") == "gate").then(30.0).when(pl.col("role") == "embed").then(1e9).otherwise(3.0)
    tables = {**tiny, "rotation": tiny["rotation"].with_columns(mean_deg=lifted)}
    assert value(ROTATION["bf16"].with_other_weighting(), tables) == pytest.approx((3 * 200 + 30 * 300) / 500)
    assert ROTATION["bf16"].with_other_weighting().with_other_weighting() == ROTATION["bf16"]
    halves = pl.when(pl.col("role") == "gate").then(0.5).otherwise(0.0)
    tables = {"update_support": tiny["update_support"].with_columns(unchanged=halves)}
    assert value(UNCHANGED.with_other_weighting(), tables) == pytest.approx(0.5 / 3)
    assert ACCURACY.with_other_weighting() is None


def test_matrices_without_a_value_are_left_out_of_the_mean(tiny):
    gone = pl.when(pl.col("role") != "gate").then(pl.col("stable_rank"))
    tables = {"update_norm": tiny["update_norm"].with_columns(stable_rank=gone)}
    assert value(STABLE_RANK["bf16"], tables) == pytest.approx(4.2 * (0.9 + 1.1) / 2)


def test_a_rank_that_follows_the_shape_keeps_every_matrix(tiny):
    lifted = pl.when(pl.col("role") == "k").then(0.9).otherwise(0.3)
    tables = {"localization": tiny["localization"].with_columns(overlap=lifted)}
    assert value(PRINCIPAL, tables) == pytest.approx(0.5)


def test_the_largest_cut_that_all_rows_have_is_taken(smollm):
    assert collect_samples([ROTATION["bf16"]], smollm, STORY.core)[ROTATION["bf16"]]["cut"].unique().to_list() == [64]
    too_large = pl.when(pl.col("k") < 64).then(pl.col("mean_deg"))
    tables = {"rotation": smollm["rotation"].with_columns(mean_deg=too_large)}
    assert collect_samples([ROTATION["bf16"]], tables, STORY.core)[ROTATION["bf16"]]["cut"].unique().to_list() == [16]


def test_the_nearest_snapshot_stands_for_a_share(tiny):
    moved = pl.when(pl.col("step") == 10).then(12).otherwise(pl.col("step")).cast(pl.Int64)
    tables = {"locking": tiny["locking"].with_columns(step=moved).filter(pl.col("recipe") == "tiny.opd")}
    assert value(SIMILARITY["bf16", 10], tables) == pytest.approx(0.80 * 1.02)
    far = {"locking": tables["locking"].filter(~pl.col("step").is_in([5, 12]))}
    assert collect_samples([SIMILARITY["bf16", 10]], far, STORY.core)[SIMILARITY["bf16", 10]].is_empty()


def test_similarity_is_to_the_last_step(tiny):
    decoy = tiny["locking"].with_columns(step_other=pl.col("step") + 1, similarity=pl.lit(0.0))
    tables = {"locking": pl.concat([tiny["locking"], decoy])}
    assert value(SIMILARITY["bf16", 25], tables) == pytest.approx(0.80 * 1.05)


def test_a_change_is_end_minus_early(tiny):
    assert value(STABLE_RANK_CHANGE["bf16"], tiny, arm="rlvr", seed=2) == pytest.approx(3.8 - 7.9)


def test_row_order_does_not_change_a_bit(tiny):
    shuffled = {name: frame.collect().sample(fraction=1, shuffle=True, seed=1).lazy() for name, frame in tiny.items()}
    metrics = [UNCHANGED, *ROTATION.values(), *STABLE_RANK.values()]
    one, other = collect_samples(metrics, tiny, STORY.core), collect_samples(metrics, shuffled, STORY.core)
    assert all(one[metric].equals(other[metric]) for metric in metrics)


def test_an_absent_view_gives_nothing(tiny):
    frame = collect_samples([replace(UNCHANGED, where=(("view", "fp8"),))], tiny, STORY.core)
    assert all(found.is_empty() for found in frame.values())
