"""Under each figure: how its numbers were computed, and what the controls say, from rows and verdicts."""

import polars as pl
import pytest
from pipelines.report.controls import controls

from pipelines.paper.items import ITEMS
from pipelines.statistics.computed import computed
from pipelines.statistics.verdicts import verdicts
from tests.pipelines.planted import STORY


def test_precision_method_seeds_cuts_and_bounds_are_read_from_the_rows(tiny):
    (told,) = computed(["rotation"], tiny, STORY.every)
    assert told.startswith("rotation: 3 matrices, 6 snapshots a run, seeds 0, 1 and 2, weights stored in fp32, ")
    assert "read as bf16 and master, method synthetic 1, k = 16." in told
    assert told.endswith("Error bound of max_deg over its value: median 1.0e-03, largest 1.0e-03."), (
        "90 deg says nothing"
    )


def test_counts_have_no_error_and_an_empty_table_no_sentence(tiny):
    (told,) = computed(["localization", "singular_shift"], tiny, STORY.every)
    assert told.endswith("A count of equal bits, which has no error.")
    assert computed(["evaluation"], tiny, STORY.every) == [
        "evaluation: 2 snapshots a run, seeds 0, 1 and 2. Standard error of one run: 2.0 points over 400 samples."
    ]


def test_a_noise_floor_is_told_where_the_table_has_one(tiny):
    floored = tiny["update_norm"].with_columns(rounding_norm=pl.col("frobenius") / 4)
    assert (
        "Noise floor: bf16's rounding is 25 % of the update's norm"
        in computed(["update_norm"], {"update_norm": floored}, STORY.every)[0]
    )


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.key)
def test_every_item_says_what_its_controls_say(tiny, item):
    told = controls(verdicts("tiny", tiny, STORY), item.speaks, item.suite)
    assert told and all(sentence.endswith(".") for sentence in told)


def test_controls_speak_of_the_items_own_tables(tiny):
    decided = verdicts("tiny", tiny, STORY)
    told = " ".join(controls(decided, ["update_support"]))
    assert "unchanged weights" in told and "stable rank" not in told
    assert "do not tell OPD from its matched offline control" in told
    assert controls(decided.head(0), ["update_support"]) == ["No statement with a control rests on these numbers."]


def test_accuracy_has_a_name_and_no_view(plant):
    arms = ("opd-at20", "opd-at20-own16", "opd-at20-random16")
    told = " ".join(controls(verdicts("tiny", plant(more=arms), STORY), ["evaluation"], "interventions"))
    assert "opd-at20-own16 follows opd-at20 in final accuracy at T=1." in told
