"""Under each figure: how its numbers were computed, and what the controls say, from rows and verdicts."""

import polars as pl

from pipelines.statistics.table_summaries import describe_tables
from tests.pipelines.planted import STORY


def test_precision_method_seeds_cuts_and_bounds_are_read_from_the_rows(tiny):
    (told,) = describe_tables(["rotation"], tiny, STORY.all_arms)
    assert told.startswith("rotation: 3 matrices, 6 snapshots a run, seeds 0, 1 and 2, weights stored in fp32, ")
    assert "read as bf16 and master, method synthetic 1, k = 16." in told
    assert told.endswith("Error bound of max_deg over its value: median 1.0e-03, largest 1.0e-03."), (
        "90 deg says nothing"
    )


def test_counts_have_no_error_and_an_empty_table_no_sentence(tiny):
    (told,) = describe_tables(["localization", "singular_shift"], tiny, STORY.all_arms)
    assert told.endswith("A count of equal bits, which has no error.")
    assert describe_tables(["evaluation"], tiny, STORY.all_arms) == [
        "evaluation: 2 snapshots a run, seeds 0, 1 and 2. Standard error of one run: 2.0 points over 400 samples."
    ]


def test_a_noise_floor_is_told_where_the_table_has_one(tiny):
    floored = tiny["update_norm"].with_columns(rounding_norm=pl.col("frobenius") / 4)
    assert (
        "Noise floor: bf16's rounding is 25 % of the update's norm"
        in describe_tables(["update_norm"], {"update_norm": floored}, STORY.all_arms)[0]
    )
