"""Planted orderings come out as planted: true, reversed, drowned in noise, or with too few seeds."""

import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.report.claims import CLAIMS
from pipelines.report.verdicts import verdicts


def row(table: pl.DataFrame, claim: str) -> dict:
    return table.row(by_predicate=pl.col("claim") == claim, named=True)


def test_every_claim_is_decided_on_a_whole_study_with_the_declared_schema(tiny):
    found = verdicts("tiny", tiny)
    assert found.schema == TABLES["verdicts"].schema
    assert found["claim"].to_list() == [claim.text for claim in CLAIMS]
    assert found["study"].unique().to_list() == ["tiny"]
    assert found["paper"].null_count() == found["note"].null_count() == 0


def test_claim_texts_are_unique():
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)


def test_planted_orderings_hold(tiny):
    found = verdicts("tiny", tiny)
    paper = found.filter(pl.col("claim").is_in([claim.text for claim in CLAIMS if claim.section == "paper"]))
    assert paper["holds"].to_list() == [True] * paper.height


def test_control_planted_equal_is_undecided_not_refuted(tiny):
    found = verdicts("tiny", tiny).filter(pl.col("claim").str.contains("matched offline control"))
    control = found.filter(pl.col("left") == "tiny.opd")
    assert control.height == 16
    assert control["holds"].is_null().all()


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ({"unchanged": 0.001}, "unchanged weights, bf16: SFT < OPD"),
        ({"size": 20.0}, "rotation, input side, master: SFT > OPD"),
        ({"size": 20.0}, "relative norm of the update, bf16: SFT > OPD"),
        ({"low_magnitude": 0.7}, "low-magnitude overlap, bf16: OPD < RLVR"),
        ({"principal": 0.6}, "principal-mask overlap, bf16: OPD at most chance"),
        ({"rank": (8.0, 4.0)}, "stable rank, bf16: OPD stays flat"),
        ({"locked": 0.3}, "Sim_16 to the final step at 10 %, bf16: OPD > SFT"),
    ],
)
def test_a_reversed_ordering_fails(plant, change, claim):
    assert row(verdicts("tiny", plant(opd=change)), claim)["holds"] is False


def test_a_control_planted_apart_differs(plant):
    found = verdicts("tiny", plant(matched={"unchanged": 0.2}))
    assert row(found, "OPD differs from its matched offline control: unchanged weights, bf16")["holds"] is True


def test_noise_is_undecided(plant):
    found = row(verdicts("tiny", plant(wobble=0.3)), "low-magnitude overlap, bf16: OPD < RLVR")
    assert found["holds"] is None
    assert found["low"] < 0 < found["high"]


def test_effect_and_interval_equal_the_ones_worked_by_hand(plant):
    found = row(verdicts("tiny", plant(wobble=0.1)), "unchanged weights, bf16: SFT < OPD")
    # Planted: sft 0.006 (1 + 0.1 (1, 0, -1)), opd 0.049 (1 + 0.1 (0, 1, -1)) for seeds 0, 1, 2.
    differences = [0.0066 - 0.049, 0.006 - 0.0539, 0.0054 - 0.0441]
    mean = sum(differences) / 3
    spread = (sum((d - mean) ** 2 for d in differences) / 2) ** 0.5
    half = 4.302653 * spread / 3**0.5  # t quantile 0.975 with 2 degrees of freedom
    assert found["effect"] == pytest.approx(mean, rel=1e-12)
    assert (found["low"], found["high"]) == pytest.approx(
        (mean - half, mean + half), rel=1e-6
    )  # digits of the quantile
    assert (found["left"], found["right"], found["seeds"]) == ("tiny.sft", "tiny.opd", 3)


def test_a_trend_compares_an_arm_with_itself_at_five_percent(tiny):
    found = row(verdicts("tiny", tiny), "stable rank, bf16: RLVR contracts")
    assert (found["left"], found["right"]) == ("tiny.rlvr", "tiny.rlvr at 5 % of its steps")
    assert (found["left_value"], found["right_value"]) == pytest.approx((3.8, 7.9))


def test_one_seed_gets_no_verdict(smollm):
    found = verdicts("smollm", smollm)
    assert found.height > 30
    assert found["seeds"].unique().to_list() == [1]
    assert found.select(pl.col("low", "high", "holds").is_null().all()).row(0) == (True, True, True)
    assert found["note"].str.starts_with("One seed").all()
    assert row(found, "rotation, input side, bf16: SFT > OPD")["metric"] == "rotation.mean_deg, bf16, side=input, k=64"


def test_a_missing_arm_leaves_out_exactly_its_claims(plant, tiny):
    found = verdicts("tiny", plant(drop=("rlvr",)))
    whole = verdicts("tiny", tiny)
    touched = pl.col("left").str.contains("rlvr") | pl.col("right").str.contains("rlvr")
    assert found["claim"].to_list() == whole.filter(~touched)["claim"].to_list()


def test_seeds_are_paired(plant):
    found = row(verdicts("tiny", plant(opd={"seeds": (1, 2)})), "unchanged weights, bf16: SFT < OPD")
    assert found["seeds"] == 2
    assert row(verdicts("tiny", plant(opd={"seeds": (2,)})), "unchanged weights, bf16: SFT < OPD")["holds"] is None


def test_missing_tables_and_empty_tables_give_no_rows(tiny):
    assert verdicts("tiny", {}).schema == TABLES["verdicts"].schema
    assert verdicts("tiny", {name: frame.head(0) for name, frame in tiny.items()}).is_empty()
    only = verdicts("tiny", {"evaluation": tiny["evaluation"]})
    assert only["metric"].unique().to_list() == ["evaluation.accuracy, temperature=1.0"]


def test_recipes_outside_the_compared_arms_are_ignored(tiny):
    other = {
        name: f.with_columns(recipe=pl.lit("tiny.opd-slow"))
        for name, f in tiny.items()
        if "recipe" in f.collect_schema()
    }
    assert verdicts("tiny", other).is_empty()
