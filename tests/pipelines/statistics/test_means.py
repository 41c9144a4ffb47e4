"""The table of means: weightings, roles and layers, and what of it the page shows."""

import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.statistics.means import METRICS, WEIGHTINGS, compare_weightings, mean_rows, split_by_key
from pipelines.statistics.metrics import ROTATION, STABLE_RANK, UNCHANGED
from pipelines.statistics.samples import collect_samples
from pipelines.statistics.verdicts import decide_all
from tests.pipelines.planted import STORY


@pytest.fixture(scope="module")
def table(tiny) -> pl.DataFrame:
    return mean_rows("tiny", tiny, STORY.all_arms)


def one(table: pl.DataFrame, words: str, weighting: str, *, role: str | None = None, layer: int | None = None) -> dict:
    mine = table.filter(
        pl.col("metric") == words,
        pl.col("weighting") == weighting,
        pl.col("role").eq_missing(pl.lit(role)),
        pl.col("layer").eq_missing(pl.lit(layer)),
        pl.col("arm") == "opd",
        pl.col("seed") == 0,
    )
    return mine.row(0, named=True)


def test_the_declared_schema_and_one_row_a_run_metric_weighting_and_group(table):
    assert table.schema == TABLES["means"].schema
    groups = 1 + 3 + 1  # all, q k gate, layer 0
    assert table.height == 4 * 3 * len(METRICS) * len(WEIGHTINGS) * groups
    keys = ["metric", "arm", "seed", "weighting", "role", "layer"]
    assert table.select(keys).is_unique().all()
    assert table["value"].null_count() == 0


def test_values_by_hand(tiny):
    lifted = pl.when(pl.col("role") == "gate").then(30.0).when(pl.col("role") == "embed").then(1e9).otherwise(3.0)
    table = mean_rows("tiny", {**tiny, "rotation": tiny["rotation"].with_columns(mean_deg=lifted)}, STORY.all_arms)
    words = ROTATION["bf16"].words
    assert one(table, words, "unweighted")["value"] == pytest.approx(12.0)
    assert one(table, words, "parameters")["value"] == pytest.approx((3 * 200 + 30 * 300) / 500)
    assert one(table, words, "unweighted", role="gate") | {"value": 30.0, "matrices": 1} == one(
        table, words, "unweighted", role="gate"
    )
    assert one(table, words, "parameters", layer=0)["value"] == pytest.approx(19.2)
    assert one(table, words, "unweighted")["matrices"] == 3
    assert one(table, words, "unweighted")["address"] == "rotation.mean_deg, bf16, side=input, k=16"


def test_matrices_without_a_value_count_in_neither_weighting(tiny):
    gone = pl.when(pl.col("role") != "gate").then(pl.col("stable_rank"))
    table = mean_rows(
        "tiny", {**tiny, "update_norm": tiny["update_norm"].with_columns(stable_rank=gone)}, STORY.all_arms
    )
    for weighting in WEIGHTINGS:
        found = one(table, STABLE_RANK["bf16"].words, weighting)
        assert (found["value"], found["matrices"]) == (pytest.approx(4.2 * (0.9 + 1.1) / 2), 2)


def test_means_and_the_samples_of_the_verdicts_are_the_same_numbers(table, tiny):
    for metric in METRICS:
        for chosen in (metric, metric.with_other_weighting()):
            weighting = "parameters" if chosen.weight else "unweighted"
            whole = table.filter(pl.col("role").is_null(), pl.col("layer").is_null())
            mine = whole.filter(pl.col("metric") == metric.words, pl.col("weighting") == weighting)
            other = collect_samples([chosen], tiny, STORY.all_arms)[chosen]
            assert mine.select("arm", "seed", "value").equals(other.select("arm", "seed", "value")), metric.words


def test_the_sign_in_the_verdicts_is_that_of_the_means(tiny):
    found = decide_all("tiny", tiny, STORY).filter(pl.col("claim") == "unchanged weights, bf16: SFT < OPD")
    assert found["same_sign_weighted"].item() is True


def test_every_suite_is_in_the_table_and_core_alone_on_the_page(varied):
    table = mean_rows("tiny", varied, STORY.all_arms)
    assert {"opd-pg", "opd-mix-75", "opd"} <= set(table["arm"])
    assert compare_weightings(table, STORY)[0] == ["metric", "weighting", "SFT", "OPD", "RLVR", "sft-matched"]


def test_unweighted_stands_over_parameter_weighted(table):
    heading, first, second, *_ = compare_weightings(table, STORY)
    assert (first[0], first[1], second[1]) == (UNCHANGED.words, "unweighted", "parameters")
    assert len(compare_weightings(table, STORY)) == 1 + 2 * len(METRICS)
    assert all(len(line) == len(heading) for line in compare_weightings(table, STORY))


def test_roles_are_in_their_order_and_layers_by_number(table):
    assert [line[0] for line in split_by_key(table, ROTATION["bf16"], "role", STORY)] == ["role", "q", "k", "gate"]
    assert [line[0] for line in split_by_key(table, ROTATION["bf16"], "layer", STORY)] == ["layer", "0"]
    # Planted: 1.2 (0.9, 1.1, 1.0) degrees for q, k and gate.
    assert [line[2].split(" ")[0] for line in split_by_key(table, ROTATION["bf16"], "role", STORY)[1:]] == [
        "1.080",
        "1.320",
        "1.200",
    ]


def test_row_order_does_not_change_a_bit(table, tiny):
    shuffled = {name: frame.collect().sample(fraction=1, shuffle=True, seed=2).lazy() for name, frame in tiny.items()}
    assert mean_rows("tiny", shuffled, STORY.all_arms).equals(table)


def test_nothing_gives_nothing():
    found = mean_rows("tiny", {}, STORY.all_arms)
    assert found.is_empty() and found.schema == TABLES["means"].schema
    assert len(compare_weightings(found, STORY)) == 1 and len(split_by_key(found, UNCHANGED, "role", STORY)) == 1
