"""The paper's numbers, as the source gives them, and what must hold between them."""

import pytest

from pipelines.paper.items import ITEMS
from pipelines.paper.published import (
    FIGURE2,
    FIGURE3,
    FIGURE4,
    FIGURE8,
    FIGURE9,
    HILL,
    LOW_MAGNITUDE,
    NORM,
    NSS,
    PRINCIPAL,
    STABLE_RANK,
    TABLE1,
    find_published,
)

EVERY = [one for item in ITEMS for one in item.published]


@pytest.mark.parametrize("one", EVERY, ids=lambda one: f"{one.quantity}-{one.arm}")
def test_a_range_is_a_range_and_a_number_stands_in_its_words(one):
    assert one.low <= one.high
    if one.ends is not None:
        assert one.low < one.high
    if one.known == "stated" and one.quantity != "principal angle":
        assert one.low == one.high and f"{one.low}" in one.words
    assert one.description.startswith(one.words)
    assert ("axis ticks" in one.description) == (one.known == "axis")
    assert ("LaTeX source" in one.description) == (one.known == "source")


def values(published, quantity):
    return {one.arm: (one.low, one.high) for one in find_published(published, quantity)}


def test_table_1():
    found = {one.arm: one.low for one in TABLE1}
    assert [found[arm] for arm in ("sft", "opd", "rlvr")] == [8.1, 51.6, 77.2]
    variants = [value for arm, value in found.items() if arm.startswith("OPD ")]
    assert sorted(variants) == [48.6, 50.3, 51.1, 51.7, 56.6, 57.1]
    pairs = [value for arm, value in found.items() if arm.startswith(("SFT:", "RLVR:"))]
    assert pairs == [0.6, 18.8, 69.9, 79.0, 79.9]


def test_drift_falls_by_orders_of_magnitude_from_sft_to_rlvr():
    drift = values(FIGURE2, NSS)
    assert drift == {"sft": (3e-3, 3.5e-3), "opd": (1e-4, 2e-4), "rlvr": (1e-5, 2e-5)}


@pytest.mark.parametrize("quantity", [PRINCIPAL, LOW_MAGNITUDE])
def test_the_densities_allow_masks_of_30_percent_and_none_of_50(quantity):
    # |mask| lies between |mask and changed| and that plus everything unchanged.
    density = {one.arm: one.low / 100 for one in find_published(FIGURE3, "changed weights")}["sft"]
    caught = {one.arm: one.low / 100 for one in find_published(FIGURE3, quantity)}["sft"] * density
    assert caught <= 0.30 <= caught + 1 - density < 0.50


def test_trajectories():
    assert values(FIGURE4, STABLE_RANK) == {"sft": (20, 75), "opd": (18, 28), "rlvr": (18, 28)}
    assert values(FIGURE4, NORM) == {"sft": (4.701, 4.701), "opd": (0.452, 0.452), "rlvr": (0.168, 0.168)}
    assert values(FIGURE4, HILL)["opd"] == (2.34, 2.93)
    assert values(FIGURE9, NORM)["opd-teacher-rollouts"][1] == 0.50
    assert {ends for arm, ends in values(FIGURE9, HILL).items() if "mix" in arm} == {(2.4, 3.0)}


def test_the_confined_pairs_lie_within_the_axes_of_their_benchmark():
    ranges = {one.arm: (one.low, one.high) for one in find_published(FIGURE8, "AIME 2024")}
    assert ranges["opd"][0] <= 63.3 < 64.2 <= ranges["opd"][1]
    assert ranges["sft"][0] <= 45.6 < 55.5 <= ranges["sft"][1]
    assert len(FIGURE8) == 10
