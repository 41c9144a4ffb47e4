"""Planted orderings come out as planted: true, reversed, drowned in noise, or with too few seeds."""

import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.report.claims import CLAIMS
from pipelines.report.suites import SOON
from pipelines.report.verdicts import verdicts


def row(table: pl.DataFrame, claim: str) -> dict:
    return table.row(by_predicate=pl.col("claim") == claim, named=True)


def test_every_claim_is_decided_on_a_whole_study_with_the_declared_schema(every):
    found = verdicts("tiny", every)
    assert found.schema == TABLES["verdicts"].schema
    ours = [claim.text for claim in CLAIMS if f"-at{SOON}" not in claim.left]  # those are about smollm's arms
    assert found["claim"].to_list() == ours and len(ours) == len(CLAIMS) - 4
    assert found["study"].unique().to_list() == ["tiny"]
    assert found["paper"].null_count() == found["note"].null_count() == 0
    assert (found["section"] != "").all() and set(found["suite"]) == {claim.suite for claim in CLAIMS}


def test_claims_of_core_are_decided_alike_whatever_else_is_measured(every, tiny):
    alone, among = verdicts("tiny", tiny), verdicts("tiny", every).filter(pl.col("suite") == "core")
    assert alone["suite"].unique().to_list() == ["core"]
    other = [name for name in alone.columns if name.startswith("control")]
    assert alone.drop(other).equals(among.drop(other))


def test_planted_statements_of_the_paper_hold(every):
    paper = verdicts("tiny", every).filter(pl.col("section") == "paper")
    assert paper.filter(pl.col("status") != "holds")["claim"].to_list() == []
    assert paper["holds"].all()


def test_status_says_what_holds_says(plant):
    found = verdicts("tiny", plant(opd={"unchanged": 0.2}, wobble=0.03))
    words = {True: "holds", False: "fails", None: "undecided"}
    assert found["status"].to_list() == [words[holds] for holds in found["holds"]]
    assert set(found["status"]) == set(words.values())


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
    # All 27 resamples of three: the ends are the smallest and the largest difference.
    assert (found["boot_low"], found["boot_high"]) == pytest.approx((min(differences), max(differences)))
    assert found["size"] == pytest.approx(mean / spread)
    assert found["detectable"] == pytest.approx(3.264 * spread, rel=1e-3)


def test_a_trend_compares_an_arm_with_itself_at_five_percent(tiny):
    found = row(verdicts("tiny", tiny), "stable rank, bf16: RLVR contracts")
    assert (found["left"], found["right"]) == ("tiny.rlvr", "tiny.rlvr at 5 % of its steps")
    assert (found["left_value"], found["right_value"]) == pytest.approx((3.8, 7.9))


def test_one_seed_gets_no_verdict(smollm):
    found = verdicts("smollm", smollm)
    assert found.height > 30
    assert found["seeds"].unique().to_list() == [1]
    absent = ("low", "high", "boot_low", "boot_high", "size", "detectable", "holds", "control_says")
    assert found.select(pl.col(absent).is_null().all()).row(0) == (True,) * len(absent)
    assert found["status"].unique().to_list() == ["undecided"]
    assert found["note"].str.starts_with("One seed").all()
    assert row(found, "rotation, input side, bf16: SFT > OPD")["metric"] == "rotation.mean_deg, bf16, side=input, k=64"


def test_a_missing_arm_leaves_out_exactly_its_claims(plant, tiny):
    found = verdicts("tiny", plant(drop=("rlvr",)))
    whole = verdicts("tiny", tiny)
    touched = pl.col("left").str.contains("rlvr") | pl.col("right").str.contains("rlvr")
    assert found["claim"].to_list() == whole.filter(~touched)["claim"].to_list()


def test_a_control_stands_beside_its_claim_with_an_interval_of_its_own(tiny):
    found = verdicts("tiny", tiny)
    ordering = row(found, "unchanged weights, bf16: SFT < OPD")
    control = row(found, "OPD differs from its matched offline control: unchanged weights, bf16")
    assert ordering["control"].startswith("sft-matched in SFT's place")
    seen = (ordering["control_effect"], ordering["control_low"], ordering["control_high"])
    assert seen == pytest.approx((-control["effect"], -control["high"], -control["low"]))


@pytest.mark.parametrize(
    ("matched", "says"),
    [
        ({}, "not seen"),
        ({"unchanged": 0.006}, "remains"),
        ({"unchanged": 0.040}, "shrinks"),
        ({"unchanged": 0.080}, "turns"),
    ],
)
def test_a_claim_that_holds_says_what_is_left_of_it_once_matched(plant, matched, says):
    found = row(verdicts("tiny", plant(matched=matched)), "unchanged weights, bf16: SFT < OPD")
    assert (found["status"], found["control_says"]) == ("holds", says)


def test_the_batch_stands_beside_opd_and_rlvr_by_the_first_control_there_is(plant, tiny):
    claim = "unchanged weights, bf16: OPD < RLVR"
    assert row(verdicts("tiny", tiny), claim)["control"] is None
    both = row(verdicts("tiny", plant(more=("rlvr-32x8", "opd-8x8"))), claim)
    assert both["control"].startswith("opd-8x8") and both["control_says"] == "remains"
    one = row(verdicts("tiny", plant(more=("rlvr-32x8",))), claim)
    assert one["control"].startswith("rlvr-32x8") and one["control_says"] == "shrinks"


def test_nothing_is_said_of_a_claim_that_does_not_hold(plant):
    found = row(verdicts("tiny", plant(opd={"unchanged": 0.001})), "unchanged weights, bf16: SFT < OPD")
    assert found["control_effect"] is not None and found["control_says"] is None


def test_a_placebo_that_survives_too_is_told(plant, every):
    claim = "final accuracy at T=1: opd-at20-own16 follows opd-at20"
    found = row(verdicts("tiny", every), claim)
    assert (found["status"], found["control_says"]) == ("holds", "differs")
    tables = dict(every)
    lifted = pl.when(pl.col("recipe") == "tiny.opd-at20-random16").then(pl.col("accuracy") + 0.13)
    tables["evaluation"] = every["evaluation"].with_columns(accuracy=lifted.otherwise(pl.col("accuracy")))
    assert row(verdicts("tiny", tables), claim)["control_says"] == "the same"


def test_sft_must_lose_more_than_the_margin(every, plant):
    claim = "final accuracy at T=1: sft-at20-own16 loses more than 5 points on sft-at20"
    found = row(verdicts("tiny", every), claim)
    assert (found["status"], found["control_says"]) == ("holds", "turns")  # planted: 12 points, sft-matched none
    gained = pl.when(pl.col("recipe") == "tiny.sft-at20-own16").then(pl.col("accuracy") + 0.09)
    tables = {**every, "evaluation": every["evaluation"].with_columns(accuracy=gained.otherwise(pl.col("accuracy")))}
    assert row(verdicts("tiny", tables), claim)["status"] == "fails"  # 3 points


def test_a_claim_about_a_band_tells_the_spread_of_its_seeds(every):
    note = row(verdicts("tiny", every), "stable rank of the update, master: opd-top25 follows OPD")["note"]
    assert "within 20 % of OPD" in note
    assert note.endswith("The seeds of the right-hand side alone span 4.19 to 4.21.")


def test_the_other_weighting_can_have_the_other_sign(tiny):
    claim = "spectral drift (NSS), bf16: SFT > OPD"
    assert row(verdicts("tiny", tiny), claim)["same_sign_weighted"] is True
    # q and k (100 weights each) move most for SFT, gate (300) for OPD: 2, 2, 0 against 0, 0, 3.
    sft = pl.col("recipe") == "tiny.sft"
    small = pl.col("role").is_in(["q", "k"])
    nss = pl.when(sft & small).then(2.0).when(~sft & ~small).then(3.0).otherwise(0.0)
    tables = {**tiny, "spectral_drift": tiny["spectral_drift"].with_columns(nss=nss)}
    found = row(verdicts("tiny", tables), claim)
    assert (found["effect"], found["same_sign_weighted"]) == (pytest.approx(4 / 3 - 1), False)


def test_accuracy_has_no_weighting(tiny):
    scored = verdicts("tiny", tiny).filter(pl.col("section") == "accuracy")
    assert scored.height == 3 and scored["same_sign_weighted"].is_null().all()


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
