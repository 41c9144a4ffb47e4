"""What a reader can choose holds the numbers of the tables, and at its first choice those of the figure."""

import json
import re

import polars as pl
import pytest

from pipelines.report import choices
from pipelines.report.captions import FIGURES
from pipelines.report.choices import ALL, DEPTHS, Choice
from pipelines.statistics.series import pooled, progress

CHOSEN = {figure.key: figure.choice for figure in FIGURES if figure.choice}


def data(choice: Choice, tables) -> dict:
    form = choice.form("here", choice.rows(tables), choice.starts(tables))
    found = re.search(r'<script type="application/json" id="here-data">(.*)</script>', form)
    assert found is not None
    return json.loads(found[1])


def fields(choice: Choice, tables) -> dict[str, list[str]]:
    form = choice.form("here", choice.rows(tables), choice.starts(tables))
    selects = re.findall(r'<select name="(\w+)"[^>]*>(.*?)</select>', form)
    return {name: re.findall(r'value="([^"]*)"', options) for name, options in selects}


@pytest.mark.parametrize("key", CHOSEN)
def test_every_combination_that_has_values_can_be_drawn_and_the_first_is_one(tiny, key):
    choice, found = CHOSEN[key], data(CHOSEN[key], tiny)
    assert "|".join(choice.starts(tiny)[name] for name in choice.axes) in found["series"]
    offered = fields(choice, tiny)
    for name in found["series"]:
        assert all(value in offered[axis] for axis, value in zip(choice.axes, name.split("|"), strict=True))
    for runs in found["series"].values():
        for arm, view, _, _, places, values in runs:
            assert found["arms"][arm]["label"] and found["views"][view]
            assert len(found["places"][places]) == len(values)


def test_the_first_choice_is_what_the_figure_draws(tiny):
    rows, first = choices.STABLE_RANK.rows(tiny), choices.STABLE_RANK.starts(tiny)
    (found,) = choices.STABLE_RANK.numbers(rows, first).values()
    drawn = pooled(progress("update_norm", tiny["update_norm"], "stable_rank"))
    assert found.select(drawn.columns).equals(drawn)


def test_a_role_is_the_mean_over_its_matrices_and_all_is_over_every_one(tiny):
    rows = choices.STABLE_RANK.rows(tiny).filter(~pl.col("null"), arm="rlvr", view="bf16", seed=2, x=100.0)
    last = rows.filter(layer=ALL)
    values = dict(last.select("role", "value").iter_rows())
    assert values == pytest.approx({ALL: 3.8, "q": 0.9 * 3.8, "k": 1.1 * 3.8, "gate": 3.8})


def test_cuts_are_offered_and_the_figures_own_comes_first(tiny):
    assert fields(choices.HILL, tiny)["k"] == ["6", "16", "32"]
    assert choices.HILL.starts(tiny)["k"] == "16", "the smallest that all matrices share"
    assert fields(choices.OVERLAP, tiny)["mask"] == ["low_magnitude", "principal"]
    assert set(fields(choices.LOCKING, tiny)["side"]) == {"input", "output"}
    assert "null" not in fields(choices.LOCKING, tiny)


def test_nulls_are_drawn_as_one_line_of_the_bf16_view(tiny):
    found = data(choices.LOCKING, tiny)
    nulls = [run for run in found["series"][f"{ALL}|{ALL}|input|16"] if run[3]]
    assert len(nulls) == len(found["arms"]) and {run[1] for run in nulls} == {0}
    assert not [run for run in found["series"][f"{ALL}|{ALL}|output|16"] if run[3]], "kept of the input side alone"


def test_chance_is_told_where_there_is_one(tiny):
    assert data(choices.OVERLAP, tiny)["floors"][f"{ALL}|{ALL}|principal|0.5"] == 50
    assert data(choices.LOCKING, tiny)["floors"][f"{ALL}|{ALL}|input|16"] == 0.125
    assert data(choices.NORM, tiny)["floors"] == {}


def test_many_layers_are_offered_as_ranges(tiny):
    deep = pl.concat([tiny["update_norm"].with_columns(layer=pl.lit(n, pl.Int64)) for n in range(36)])
    offered = fields(choices.NORM, {"update_norm": deep.filter(pl.col("role") != "embed")})["layer"]
    assert offered == [ALL, "0", "6", "12", "18", "24", "30"] and len(offered) == DEPTHS + 1


def test_the_numbers_of_the_script_do_not_end_it(tiny):
    named = choices.STABLE_RANK.rows(tiny).with_columns(role=pl.lit("</script>"))
    first = choices.STABLE_RANK.starts(tiny)
    form = choices.STABLE_RANK.form("here", named, first)
    assert form.count("</script>") == 1
