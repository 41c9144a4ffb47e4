"""Planted orderings come out as planted: true, reversed, drowned in noise, or with too few seeds.

The file is longer than 350 lines because all outcomes are planted in the same tables.
"""

import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.paper.claims import CLAIMS
from pipelines.paper.suites import SOON
from pipelines.statistics.verdicts import decide_all
from tests.pipelines.planted import STORY

ACCURACY = "OPD differs from RLVR: final accuracy at T=1"


def row(table: pl.DataFrame, claim: str) -> dict:
    return table.row(by_predicate=pl.col("claim") == claim, named=True)


def test_every_claim_is_decided_on_a_whole_study_with_the_declared_schema(every):
    found = decide_all("tiny", every, STORY)
    assert found.schema == TABLES["verdicts"].schema
    ours = [claim.text for claim in CLAIMS if f"-at{SOON}" not in claim.left]  # those are about smollm's arms
    assert found["claim"].to_list() == ours and len(ours) == len(CLAIMS) - 4
    assert found["study"].unique().to_list() == ["tiny"]
    assert found["paper"].null_count() == found["note"].null_count() == 0
    assert (found["section"] != "").all() and set(found["suite"]) == {claim.suite for claim in CLAIMS}


def test_claims_of_core_are_decided_alike_whatever_else_is_measured(every, tiny):
    alone, among = decide_all("tiny", tiny, STORY), decide_all("tiny", every, STORY).filter(pl.col("suite") == "core")
    assert alone["suite"].unique().to_list() == ["core"]
    other = [name for name in alone.columns if name.startswith("control")]
    assert alone.drop(other).equals(among.drop(other))


def test_planted_statements_of_the_paper_hold(every):
    paper = decide_all("tiny", every, STORY).filter(pl.col("section") == "paper")
    assert paper.filter(pl.col("status") != "holds")["claim"].to_list() == []
    assert paper["holds"].all()


def test_status_says_what_holds_says(plant):
    found = decide_all("tiny", plant(opd={"unchanged": 0.2}, wobble=0.03), STORY)
    words = {True: "holds", False: "fails", None: "undecided"}
    assert found["status"].to_list() == [words[holds] for holds in found["holds"]]
    assert set(found["status"]) == set(words.values())


def test_control_planted_equal_is_undecided_not_refuted(tiny):
    found = decide_all("tiny", tiny, STORY).filter(pl.col("claim").str.contains("matched offline control"))
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
    assert row(decide_all("tiny", plant(opd=change), STORY), claim)["holds"] is False


def test_a_control_planted_apart_differs(plant):
    found = decide_all("tiny", plant(matched={"unchanged": 0.2}), STORY)
    assert row(found, "OPD differs from its matched offline control: unchanged weights, bf16")["holds"] is True


def test_noise_is_undecided(plant):
    found = row(decide_all("tiny", plant(wobble=0.3), STORY), "low-magnitude overlap, bf16: OPD < RLVR")
    assert found["holds"] is None
    assert found["low"] < 0 < found["high"]


def test_effect_and_interval_equal_the_ones_worked_by_hand(plant):
    found = row(decide_all("tiny", plant(wobble=0.1), STORY), "unchanged weights, bf16: SFT < OPD")
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
    found = row(decide_all("tiny", tiny, STORY), "stable rank, bf16: RLVR contracts")
    assert (found["left"], found["right"]) == ("tiny.rlvr", "tiny.rlvr at 5 % of its steps")
    assert (found["left_value"], found["right_value"]) == pytest.approx((3.8, 7.9))


def test_one_seed_gets_no_verdict(smollm):
    found = decide_all("smollm", smollm, STORY)
    assert found.height > 30
    assert found["seeds"].unique().to_list() == [1]
    absent = ("low", "high", "boot_low", "boot_high", "size", "detectable", "holds", "control_says")
    assert found.select(pl.col(absent).is_null().all()).row(0) == (True,) * len(absent)
    assert found["status"].unique().to_list() == ["undecided"]
    assert found["note"].str.starts_with("One seed").all()
    assert row(found, "rotation, input side, bf16: SFT > OPD")["metric"] == "rotation.mean_deg, bf16, side=input, k=64"


def test_a_missing_arm_leaves_out_exactly_its_claims(plant, tiny):
    found = decide_all("tiny", plant(drop=("rlvr",)), STORY)
    whole = decide_all("tiny", tiny, STORY)
    touched = pl.col("left").str.contains("rlvr") | pl.col("right").str.contains("rlvr")
    assert found["claim"].to_list() == whole.filter(~touched)["claim"].to_list()


def test_a_control_stands_beside_its_claim_with_an_interval_of_its_own(tiny):
    found = decide_all("tiny", tiny, STORY)
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
    found = row(decide_all("tiny", plant(matched=matched), STORY), "unchanged weights, bf16: SFT < OPD")
    assert (found["status"], found["control_says"]) == ("holds", says)


def test_the_batch_stands_beside_opd_and_rlvr_by_the_first_control_there_is(plant, tiny):
    claim = "unchanged weights, bf16: OPD < RLVR"
    assert row(decide_all("tiny", tiny, STORY), claim)["control"] is None
    both = row(decide_all("tiny", plant(more=("rlvr-32x8", "opd-8x8")), STORY), claim)
    assert both["control"].startswith("opd-8x8") and both["control_says"] == "remains"
    one = row(decide_all("tiny", plant(more=("rlvr-32x8",)), STORY), claim)
    assert one["control"].startswith("rlvr-32x8") and one["control_says"] == "shrinks"


def test_nothing_is_said_of_a_claim_that_does_not_hold(plant):
    found = row(decide_all("tiny", plant(opd={"unchanged": 0.001}), STORY), "unchanged weights, bf16: SFT < OPD")
    assert found["control_effect"] is not None and found["control_says"] is None


def test_a_placebo_that_survives_too_is_told(plant, every):
    claim = "final accuracy at T=1: opd-at20-own16 follows opd-at20"
    found = row(decide_all("tiny", every, STORY), claim)
    assert (found["status"], found["control_says"]) == ("holds", "differs")
    tables = dict(every)
    lifted = pl.when(pl.col("recipe") == "tiny.opd-at20-random16").then(pl.col("accuracy") + 0.13)
    tables["evaluation"] = every["evaluation"].with_columns(accuracy=lifted.otherwise(pl.col("accuracy")))
    assert row(decide_all("tiny", tables, STORY), claim)["control_says"] == "the same"


def test_sft_must_lose_more_than_the_margin(every, plant):
    claim = "final accuracy at T=1: sft-at20-own16 loses more than 5 points on sft-at20"
    found = row(decide_all("tiny", every, STORY), claim)
    assert (found["status"], found["control_says"]) == ("holds", "turns")  # planted: 12 points, sft-matched none
    gained = pl.when(pl.col("recipe") == "tiny.sft-at20-own16").then(pl.col("accuracy") + 0.13)
    tables = {**every, "evaluation": every["evaluation"].with_columns(accuracy=gained.otherwise(pl.col("accuracy")))}
    assert row(decide_all("tiny", tables, STORY), claim)["status"] == "fails"  # it gains one point


def test_a_claim_about_a_band_tells_the_spread_of_its_seeds(every):
    note = row(decide_all("tiny", every, STORY), "stable rank of the update, master: opd-top25 follows OPD")["note"]
    assert "within 20 % of OPD" in note
    assert note.endswith("The seeds of the right-hand side alone span 4.19 to 4.21.")


def test_the_other_weighting_can_have_the_other_sign(tiny):
    claim = "spectral drift (NSS), bf16: SFT > OPD"
    assert row(decide_all("tiny", tiny, STORY), claim)["same_sign_weighted"] is True
    # q and k (100 weights each) move most for SFT, gate (300) for OPD: 2, 2, 0 against 0, 0, 3.
    sft = pl.col("recipe") == "tiny.sft"
    small = pl.col("role").is_in(["q", "k"])
    nss = pl.when(sft & small).then(2.0).when(~sft & ~small).then(3.0).otherwise(0.0)
    tables = {**tiny, "spectral_drift": tiny["spectral_drift"].with_columns(nss=nss)}
    found = row(decide_all("tiny", tables, STORY), claim)
    assert (found["effect"], found["same_sign_weighted"]) == (pytest.approx(4 / 3 - 1), False)


def test_accuracy_has_no_weighting(tiny):
    scored = decide_all("tiny", tiny, STORY).filter(pl.col("section") == "accuracy")
    assert scored.height == 3 and scored["same_sign_weighted"].is_null().all()


def test_seeds_are_paired(plant):
    found = row(decide_all("tiny", plant(opd={"seeds": (1, 2)}), STORY), "unchanged weights, bf16: SFT < OPD")
    assert found["seeds"] == 2
    assert (
        row(decide_all("tiny", plant(opd={"seeds": (2,)}), STORY), "unchanged weights, bf16: SFT < OPD")["holds"]
        is None
    )


def test_missing_tables_and_empty_tables_give_no_rows(tiny):
    assert decide_all("tiny", {}, STORY).schema == TABLES["verdicts"].schema
    assert decide_all("tiny", {name: frame.head(0) for name, frame in tiny.items()}, STORY).is_empty()
    only = decide_all("tiny", {"evaluation": tiny["evaluation"]}, STORY)
    assert only["metric"].unique().to_list() == ["evaluation.accuracy, temperature=1.0"]


def test_recipes_outside_the_compared_arms_are_ignored(tiny):
    other = {
        name: f.with_columns(recipe=pl.lit("tiny.opd-slow"))
        for name, f in tiny.items()
        if "recipe" in f.collect_schema()
    }
    assert decide_all("tiny", other, STORY).is_empty()


def changed(tables, expression, *only):
    """Every table of runs with columns replaced; only: by name, all where empty."""
    there = {name: frame for name, frame in tables.items() if not only or name in only}
    return {**tables, **{name: frame.with_columns(expression) for name, frame in there.items()}}


def copied(tables, *seeds):
    """Seed 0 in the place of these too."""
    first = {name: frame.filter(pl.col("seed") == 0) for name, frame in tables.items()}
    others = {name: frame.filter(~pl.col("seed").is_in(seeds)) for name, frame in tables.items()}
    again = [
        {name: frame.with_columns(seed=pl.lit(seed, pl.Int64())) for name, frame in first.items()} for seed in seeds
    ]
    return {name: pl.concat([frame, *(one[name] for one in again)]) for name, frame in others.items()}


def test_one_seed_copied_decides_nothing_and_is_named(tiny):
    found = decide_all("tiny", copied(tiny, 1, 2), STORY)
    assert found.height == decide_all("tiny", tiny, STORY).height and set(found["status"]) == {"undecided"}
    assert found["low"].null_count() == found.height and set(found["seeds"]) == {1}
    note = row(found, "unchanged weights, bf16: SFT < OPD")["note"]
    assert note.startswith("One seed: no interval, no verdict. Left out: opd seed 1 has the same weights as seed 0; ")
    assert "sft seed 2 has the same weights as seed 0." in note


def test_a_copy_among_seeds_does_not_count(tiny):
    found = row(decide_all("tiny", copied(tiny, 2), STORY), "unchanged weights, bf16: SFT < OPD")
    assert (found["seeds"], found["status"]) == (2, "undecided") and found["low"] is not None
    assert found["note"].startswith(
        "Two seeds: no verdict, which takes three. Left out: opd seed 2 has the same weights"
    )


def test_a_copy_that_was_measured_elsewhere_is_one_too(tiny):
    noise = 1 + 1e-12 * pl.col("seed")
    tables = changed(copied(tiny, 1, 2), pl.col("frobenius") * noise, "update_norm")
    assert set(decide_all("tiny", tables, STORY)["seeds"]) == {1}


def test_copies_are_told_without_update_norm(tiny):
    bare = {name: frame for name, frame in copied(tiny, 1, 2).items() if name != "update_norm"}
    assert set(decide_all("tiny", bare, STORY)["seeds"]) == {1}


def test_runs_that_never_moved_and_equal_runs_of_two_arms_are_no_copies(tiny, plant):
    still = changed(tiny, pl.lit(0.0).alias("frobenius"), "update_norm")
    still = changed(still, pl.lit(0.0).alias("nss"), "spectral_drift")
    assert row(decide_all("tiny", still, STORY), "unchanged weights, bf16: SFT < OPD")["seeds"] == 3
    # Two arms with the same rows at every seed, as a sham that does nothing and what it stands beside.
    twin = pl.col("recipe").replace("tiny.rlvr-noise-sham", "tiny.rlvr")
    arms = plant(more=("rlvr-noise-sham",))
    alone = {name: frame.filter(pl.col("recipe") != "tiny.rlvr") for name, frame in arms.items()}
    both = {
        name: pl.concat([frame, frame.with_columns(twin).filter(recipe="tiny.rlvr")]) for name, frame in alone.items()
    }
    found = row(decide_all("tiny", both, STORY), "final accuracy at T=1: rlvr-noise-sham follows RLVR")
    assert (found["seeds"], found["effect"], found["status"]) == (3, 0.0, "undecided")
    assert found["note"].startswith("The difference is the same for every seed up to rounding")
    assert found["low"] < 0 < found["high"], "what its samples and problems leave open"


@pytest.mark.parametrize("noise", [(0.0, 0.0, 0.0), (0.0, 5.6e-17, 1.2e-16), (0.0, 1e-13, -1e-13)])
def test_differences_that_are_equal_up_to_rounding_decide_nothing(tiny, noise):
    sft, shift = pl.col("recipe") == "tiny.sft", pl.col("seed").replace_strict([0, 1, 2], noise, default=0.0)
    equal = pl.when(sft).then(0.1).otherwise(0.3) + pl.when(sft).then(shift).otherwise(0.0)
    found = row(
        decide_all("tiny", changed(tiny, equal.alias("unchanged"), "update_support"), STORY),
        "unchanged weights, bf16: SFT < OPD",
    )
    assert (found["status"], found["seeds"], found["low"], found["size"]) == ("undecided", 3, None, None)
    assert found["note"].startswith("The difference is the same for every seed up to rounding")


def test_two_seeds_never_decide(plant, tiny):
    only = {name: frame.filter(pl.col("seed") < 2) for name, frame in tiny.items()}
    found = decide_all("tiny", only, STORY)
    assert set(found["status"]) == {"undecided"} and set(found["seeds"]) == {2}
    assert found["note"].str.starts_with("Two seeds: no verdict, which takes three.").all()
    assert found["control_says"].null_count() == found.height


def test_a_control_of_too_few_seeds_says_nothing(plant):
    tables = plant(matched={"unchanged": 0.006, "seeds": (0, 1)})
    found = row(decide_all("tiny", tables, STORY), "unchanged weights, bf16: SFT < OPD")
    assert found["status"] == "holds" and found["control_low"] is not None and found["control_says"] is None


def scored_as(tables, **accuracies):
    """All runs scored on 8 problems x 4 samples, three seeds alike."""
    value = pl.col("recipe").replace_strict({f"tiny.{arm}": p for arm, p in accuracies.items()}, default=0.5)
    few = {"problems": pl.lit(8, pl.Int64()), "samples": pl.lit(4, pl.Int64()), "stderr": pl.lit(0.06)}
    return {**tables, "evaluation": tables["evaluation"].with_columns(accuracy=value, **few)}


def test_equal_accuracies_of_few_samples_have_an_interval_and_no_verdict(tiny):
    found = row(
        decide_all("tiny", scored_as(tiny, opd=1 / 32, rlvr=8 / 32), STORY),
        "OPD differs from RLVR: final accuracy at T=1",
    )
    assert found["effect"] == pytest.approx(-7 / 32) and found["status"] == "undecided"
    assert found["high"] - found["low"] > 0.2, "8 problems"


def test_an_interval_of_accuracies_is_no_narrower_than_sampling_and_problems_make_it(tiny):
    # Differences of -7/32, spread by a hundredth of a point: over seeds alone the interval would be 0.05 points wide.
    nearly = scored_as(tiny, opd=1 / 32, rlvr=8 / 32)
    spread = pl.when(pl.col("recipe") == "tiny.opd").then(1e-4 * pl.col("seed")).otherwise(0.0)
    nearly["evaluation"] = nearly["evaluation"].with_columns(accuracy=pl.col("accuracy") + spread)
    found = row(decide_all("tiny", nearly, STORY), ACCURACY)
    assert found["high"] - found["low"] > 0.2 and found["detectable"] > 0.15
    assert found["low"] >= -1 and found["high"] <= 1


def test_an_interval_of_accuracies_stays_within_what_is_possible(tiny):
    opd = pl.col("seed").replace_strict([0, 1, 2], [1.0, 0.2, 0.6])
    value = pl.when(pl.col("recipe") == "tiny.opd").then(opd).otherwise(0.05 * pl.col("seed"))
    found = row(decide_all("tiny", changed(tiny, value.alias("accuracy"), "evaluation"), STORY), ACCURACY)
    assert found["effect"] == pytest.approx(0.55) and found["high"] == 1.0 and -1 <= found["low"] < 0


def test_a_run_whose_rows_end_early_is_named_and_no_end(tiny):
    short = pl.col("recipe").eq("tiny.opd") & pl.col("seed").eq(1) & pl.col("step").gt(50)
    found = decide_all("tiny", {**tiny, "update_support": tiny["update_support"].filter(~short)}, STORY)
    one = row(found, "unchanged weights, bf16: SFT < OPD")
    assert (one["seeds"], one["status"]) == (2, "undecided")
    assert "Left out: opd seed 1 has rows of update_support up to step 50 of 100." in one["note"]
    whole = row(found, "relative norm of the update, bf16: SFT > OPD")
    assert (whole["seeds"], whole["status"]) == (3, "holds") and "Left out" not in whole["note"]


def test_an_evaluation_that_ends_before_the_run_is_no_final_one(tiny):
    late = pl.col("recipe").eq("tiny.opd") & pl.col("step").gt(0)
    tables = {**tiny, "evaluation": tiny["evaluation"].filter(~late)}
    found = decide_all("tiny", tables, STORY)
    assert found.filter(claim=ACCURACY).is_empty(), "its start is not its end"


def test_a_value_that_is_not_finite_leaves_its_run_out(tiny):
    broken = pl.when(pl.col("recipe").eq("tiny.opd") & pl.col("seed").eq(1)).then(float("nan")).otherwise("unchanged")
    found = row(
        decide_all("tiny", changed(tiny, broken.alias("unchanged"), "update_support"), STORY),
        "unchanged weights, bf16: SFT < OPD",
    )
    assert (found["seeds"], found["status"]) == (2, "undecided")
