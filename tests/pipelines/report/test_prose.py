"""The words follow the verdicts."""

import polars as pl

from pipelines.report import prose
from pipelines.statistics.verdicts import verdicts


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


def test_what_the_controls_say_is_told_by_reading(plant):
    told = prose.controlled(verdicts("tiny", plant(matched={"unchanged": 0.006})))
    told, others = ([line for line in told if ("in SFT's place" in line) is so] for so in (True, False))
    (remains,) = [line for line in told if "remains" in line]
    assert remains == (
        "Holds, and remains with the confound matched (sft-matched in SFT's place: OPD's start, learning rate, steps "
        "and batch): SFT < OPD in unchanged weights (bf16)."
    )
    (gone,) = [line for line in told if "is not seen" in line]
    assert "SFT > OPD in rotation, input side (bf16, master), spectral drift (NSS) (bf16, master) and relative" in gone
    assert "unchanged" not in gone
    assert any(line.startswith("Holds, but its control shows the same (the offline twin") for line in others)


def test_one_seed_has_controls_that_say_nothing(smollm):
    assert prose.controlled(verdicts("smollm", smollm)) == []


def test_statements_of_a_suite_are_told_by_status_with_their_control(every):
    told = prose.outcomes(verdicts("tiny", every), "paper", "interventions")
    (survives,) = [line for line in told["holds"] if "opd-at20-own16 follows opd-at20:" in line]
    assert "opd-at20-own16 86.0 %, opd-at20 86.0 %; difference" in survives
    assert "Holds, and its control does not show it (a random basis in place of its own: -13 [" in survives
    assert survives.endswith("Paper: 64.2 against 63.3, AIME 2024 (in its LaTeX source, commented out).")
    assert len(told["holds"]) == 2
    ours = prose.outcomes(verdicts("tiny", every), "ours", "interventions")
    assert not any("Paper" in line for lines in ours.values() for line in lines)
    assert list(ours) == [status for status in prose.STATUSES if status in ours]
    assert prose.outcomes(verdicts("tiny", every), "paper", "steering") == {}


def test_the_paragraph_on_weighting_names_what_changes(tiny):
    table = verdicts("tiny", tiny)
    assert prose.weighting(table) == (
        "Of 33 statements of the paper, 33 have a difference of the same sign by either weighting."
    )
    turned = table.with_columns(
        same_sign_weighted=pl.when(pl.int_range(pl.len()) == 0).then(False).otherwise("same_sign_weighted")
    )
    assert prose.weighting(turned).endswith("these have not: unchanged weights, bf16: SFT < OPD.")
    assert prose.weighting(table.clear()) == "There is nothing to weight."


def test_what_the_bootstrap_would_decide_otherwise_is_counted(tiny):
    table = verdicts("tiny", tiny)
    narrow = pl.when(pl.col("claim") == "OPD differs from its matched offline control: unchanged weights, bf16")
    table = table.with_columns(boot_low=pl.col("low"), boot_high=pl.col("high"))
    assert prose.bootstrapped(table) == f"By the bootstrap 0 of {table.height} statements would come out otherwise."
    table = table.with_columns(
        boot_low=narrow.then(0.001).otherwise("low"), boot_high=narrow.then(0.002).otherwise("high")
    )
    assert prose.bootstrapped(table).startswith("By the bootstrap 1 of ")


def test_nothing_is_said_about_nothing():
    table = verdicts("tiny", {})
    assert "none of the comparisons" in prose.summary(table)
    assert prose.bullets(table, "holds") == []
