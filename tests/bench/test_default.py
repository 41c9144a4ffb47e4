"""Figure 10: ratios within a round, the median of the rounds, and a reason for every tool that is not there."""

import dataclasses

import pytest

from tests.bench import diffract, measuring, peers
from tests.bench.figures import default as figure
from tests.bench.figures.default import BASE, FURTHER, KEPT, PUBLISHED, WHOLE, compare_rounds

PAIR = f"{diffract.NAME}, W0 and a snapshot"


@pytest.fixture
def without_tools(monkeypatch, tmp_path):
    for module, name in ((peers, "TOOLS"), (diffract, "TOOL")):
        monkeypatch.setattr(module, name, dataclasses.replace(getattr(module, name), folder=tmp_path / name))


def test_the_default_measurement_stands_beside_the_recipe_and_absent_tools_say_why(tiny, without_tools):
    found = figure.measure_default(tiny)
    rows = {(row.case, row.quantity): row for row in found}
    assert {row.figure for row in found} == {10}
    assert rows[WHOLE, "CPU once per base"].value == 0  # dense at this size: nothing is kept of W0
    assert rows[WHOLE, "CPU per checkpoint, base included"].value > 0
    for what in (PUBLISHED, KEPT):
        ratio = rows[what, "over ours, base included"]
        assert ratio.goal == ">= 3" and ratio.value > 0 and ratio.met is not None
    assert rows[KEPT, "CPU per snapshot"].value < rows[PUBLISHED, "CPU per snapshot"].value
    for what, goal in (("weightwatcher 0.7.7", ""), ("modeldelta 0.4.4", ""), (FURTHER, ">= 3")):
        absent = rows[what, "over ours, base included"]
        assert (absent.value, absent.met, absent.goal) == (None, None, goal) and "not installed" in absent.note
    alone = [row for row in found if row.case.endswith(" alone") and row.case != "all tables alone"]
    assert [row.case for row in alone] == [f"{table} alone" for table in measuring.DEFAULT.tables]
    assert rows["all tables alone", "their sum over the default measurement"].value > 0


def test_every_round_is_measured_anew_and_a_shape_counts_as_often_as_it_occurs(tiny, monkeypatch, without_tools):
    """Matrices 96 x 96 and two of 72 x 96: 2 s of base and 10 s in all each, others 6 s."""
    stores = []

    def measure(store, paths, name, tables=measuring.DEFAULT.tables):
        stores.append((store.uri, name))
        return measuring.Cost(10.0, 2.0)

    def measure_all(store, paths, sizes, absent):
        stores.append((store.uri, "default"))
        return [(WHOLE, 10.0), (BASE, 2.0), (PUBLISHED, 6.0)]

    monkeypatch.setattr(figure.measuring, "measure", measure)
    monkeypatch.setattr(figure, "_measure_all", measure_all)
    sizes = dataclasses.replace(tiny, repeats=3)
    rows = {(row.case, row.quantity): row for row in figure.measure_default(sizes)}
    assert [count for _, count in figure.counted(tiny.ten)] == [2, 1]
    assert rows[WHOLE, "CPU once per base"].value == 6
    assert rows[WHOLE, "CPU per checkpoint, base apart"].value == pytest.approx(8)
    assert rows[WHOLE, "CPU per checkpoint, base included"].value == pytest.approx(10)
    assert rows[PUBLISHED, "over ours, base included"].value == pytest.approx(18 / 10)
    assert rows["rotation alone", "CPU per checkpoint"].value == pytest.approx(8)
    assert rows["all tables alone", "their sum over the default measurement"].value == pytest.approx(10)
    assert "median of 3" in rows[WHOLE, "CPU once per base"].note
    first = [uri for uri, name in stores if name == "default"]
    assert len(set(first)) == len(first) == 6, "a store of its own for every round and matrix"
    assert {uri for uri, name in stores if name == "nulls"} == set(first[:2]), "tables alone find the base factors"


def test_ratios_are_within_a_round_and_the_median_counts():
    """The second round ran at half the speed for all: its ratio is that of the first."""
    rounds = [
        {WHOLE: 24.0, BASE: 4.0, PAIR: 50.0, FURTHER: 24.0},
        {WHOLE: 48.0, BASE: 8.0, PAIR: 100.0, FURTHER: 48.0},
        {WHOLE: 24.0, BASE: 4.0, PAIR: 10.0, FURTHER: 20.0},
    ]
    rows = {(row.case, row.quantity): row for row in compare_rounds(rounds, 4, {}, "about")}
    assert rows[FURTHER, "over ours, base apart"].value == pytest.approx(24 / 5)
    further = rows[FURTHER, "over ours, base included"]
    assert further.value == pytest.approx(4.0) and further.met and further.goal == ">= 3"
    assert rows[PAIR, "CPU per snapshot"].value == 50 and rows[PAIR, "over ours, base included"].goal == ""
    assert rows[WHOLE, "CPU per checkpoint, base included"].value == pytest.approx(6)
