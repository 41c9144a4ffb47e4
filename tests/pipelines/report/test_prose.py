"""The words follow the verdicts."""

import polars as pl

from pipelines.report import prose
from pipelines.report.verdicts import verdicts


def test_a_reproduced_study_is_told_as_such(tiny):
    table = verdicts("tiny", tiny)
    assert prose.summary(table).endswith("33 hold, 0 fail and 0 stay undecided.")
    assert prose.bullets(table, "fails") == prose.bullets(table, "undecided") == []
    assert prose.split_views(table) == []
    first = prose.bullets(table, "holds")[0]
    assert first.startswith(
        "unchanged weights: SFT < OPD (bf16 0.600 % against 4.90 %); OPD < RLVR (bf16 4.90 % against"
    )
    assert first.endswith("Paper: SFT 8.1 % / OPD 51.6 % / RLVR 77.2 %.")


def test_a_failure_is_told_with_its_interval(plant):
    table = verdicts("tiny", plant(opd={"unchanged": 0.2}))
    assert "1 fail" in prose.summary(table)
    (told,) = prose.bullets(table, "fails")
    assert "OPD < RLVR (bf16 20.0 % against 13.3 %, difference +6.7" in told


def test_one_seed_says_which_way_it_points(smollm):
    table = verdicts("smollm", smollm)
    assert "none gets a verdict; 32 of 33 point the paper's way" in prose.summary(table)
    assert prose.bullets(table, "holds") == []
    (other,) = prose.bullets(table, "away")
    assert other.startswith("low-magnitude overlap: SFT at chance (bf16 71.1 % against 50.0 %)")
    assert "no matched offline control" in prose.control(table)


def test_the_control_paragraph_counts_and_names_differences(plant, tiny):
    assert prose.control(verdicts("tiny", tiny)) == (
        "On 15 of 15 metrics these seeds do not tell OPD from its matched offline control."
    )
    apart = prose.control(verdicts("tiny", plant(matched={"unchanged": 0.2, "principal": 0.3})))
    assert apart.startswith("On 13 of 15 metrics")
    assert apart.endswith("they do on unchanged weights, bf16 and principal-mask overlap, bf16.")


def test_a_view_that_changes_the_outcome_is_pointed_out(tiny):
    flat = pl.when(pl.col("view") == "master").then(pl.lit(4.0)).otherwise(pl.col("stable_rank"))
    tables = {**tiny, "update_norm": tiny["update_norm"].with_columns(stable_rank=flat)}
    told = prose.split_views(verdicts("tiny", tables))
    assert "stable rank of the update, RLVR contracts: holds in bf16, undecided in master" in told


def test_nothing_is_said_about_nothing():
    table = verdicts("tiny", {})
    assert "none of the comparisons" in prose.summary(table)
    assert prose.bullets(table, "holds") == []
