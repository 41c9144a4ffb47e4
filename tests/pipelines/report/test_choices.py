"""What a reader can choose holds the numbers of the tables, and at its first choice those of the figure."""

import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.report import choices, figures
from pipelines.report.choices import ALL, DEPTHS, Quantity
from pipelines.statistics.samples import fill_tables
from pipelines.statistics.series import pool_seeds, progress_rows
from tests.pipelines.planted import STORY

CORE = STORY.core
QUANTITIES = {name.lower(): value for name, value in vars(choices).items() if isinstance(value, Quantity)}


def fields(quantity: Quantity, tables) -> dict[str, tuple[list[str], str]]:
    """By axis the values that a chart offers, and the one that it begins with."""
    params = figures.draw_lines(quantity, STORY, fill_tables(tables), CORE).to_dict()["params"]
    return {param["name"].removeprefix("pick_"): (param["bind"]["options"], param["value"]) for param in params}


@pytest.mark.parametrize("key", QUANTITIES)
def test_every_value_that_is_offered_has_rows_and_the_first_choice_too(tiny, key):
    quantity = QUANTITIES[key]
    rows, offered = quantity.rows(tiny, CORE), fields(quantity, tiny)
    assert tuple(offered) == quantity.axes
    for axis, (values, first) in offered.items():
        assert set(values) == set(rows[axis]) and first in values
    shown = quantity.numbers(rows, quantity.starts(tiny, CORE))
    assert set(shown["arm"]) == set(CORE)


@pytest.mark.parametrize("key", QUANTITIES)
def test_the_numbers_under_a_figure_are_those_that_it_shows_first(tiny, key):
    quantity = QUANTITIES[key]
    rows, first = quantity.rows(tiny, CORE), quantity.starts(tiny, CORE)
    (listed,) = figures.line_numbers(quantity, STORY, fill_tables(tiny), CORE).values()
    shown = quantity.numbers(rows, first)
    assert listed.select("view", "value", "low", "high").equals(shown.select("view", "value", "low", "high"))
    assert set(listed["arm"]) == {STORY.label(arm) for arm in CORE}


def test_the_first_choice_is_the_mean_over_all_matrices(tiny):
    shown = choices.STABLE_RANK.numbers(choices.STABLE_RANK.rows(tiny, CORE), choices.STABLE_RANK.starts(tiny, CORE))
    drawn = pool_seeds(progress_rows("update_norm", tiny["update_norm"], "stable_rank", CORE))
    both = shown.join(drawn, on=("arm", "view", "progress"), suffix="_drawn")
    assert both.height == shown.height == drawn.height
    for name in ("value", "low", "high"):
        assert both[name].to_list() == pytest.approx(both[f"{name}_drawn"].to_list(), rel=1e-12)


def test_a_role_is_the_mean_over_its_matrices_and_all_is_over_every_one(tiny):
    rows = choices.STABLE_RANK.rows(tiny, CORE).filter(~pl.col("null"), arm="rlvr", view="bf16", progress=100.0)
    values = dict(rows.filter(layer=ALL).select("role", "value").iter_rows())
    assert values == pytest.approx({ALL: 3.8, "q": 0.9 * 3.8, "k": 1.1 * 3.8, "gate": 3.8})


def test_seeds_that_end_at_different_steps_are_read_off_between_their_own():
    rows = [
        {"study": "t", "recipe": "t.opd", "seed": seed, "step": step, "matrix": "m", "layer": 0, "role": role}
        | {"view": "bf16", "frobenius": float(step * (seed + 1)), "relative_norm": 0.1}
        for seed, steps in enumerate([(10, 50, 100), (10, 40, 80)])
        for step in steps
        for role in ("q", "k")
    ]
    tables = {"update_norm": pl.DataFrame(rows, schema=TABLES["update_norm"].schema).lazy()}
    shown = choices.NORM.rows(tables, ["opd"]).filter(role="k", layer=ALL)
    expected = pool_seeds(progress_rows("update_norm", tables["update_norm"], "frobenius", ["opd"]))
    assert shown["progress"].to_list() == expected["progress"].to_list() == [12.5, 50.0, 100.0]
    for name in ("value", "low", "high"):
        assert shown[name].to_list() == pytest.approx(expected[name].to_list())


def test_cuts_are_offered_and_the_figures_own_comes_first(tiny):
    assert fields(choices.HILL, tiny)["k"] == (["6", "16", "32"], "16"), "the smallest that all matrices share"
    assert fields(choices.OVERLAP, tiny)["mask"] == (["low_magnitude", "principal"], "low_magnitude")
    assert set(fields(choices.LOCKING, tiny)["side"][0]) == {"input", "output"}


def test_nulls_are_kept_of_the_bf16_view_and_the_input_side(tiny):
    nulls = choices.LOCKING.rows(tiny, CORE).filter("null", role=ALL, layer=ALL, k="16")
    assert set(nulls["arm"]) == set(CORE)
    assert set(nulls["view"]) == {"bf16"} and set(nulls["side"]) == {"input"}


def test_chance_stands_in_the_rows_that_have_one(tiny):
    rows = choices.OVERLAP.rows(tiny, CORE).filter(mask="principal", alpha="0.5")
    assert set(rows["floor"]) == {50.0}
    assert set(choices.LOCKING.rows(tiny, CORE).filter(~pl.col("null"), role=ALL, k="16")["floor"]) == {0.125}
    assert choices.NORM.rows(tiny, CORE)["floor"].null_count() == choices.NORM.rows(tiny, CORE).height


def test_many_layers_are_offered_as_ranges(tiny):
    deep = pl.concat([tiny["update_norm"].with_columns(layer=pl.lit(n, pl.Int64)) for n in range(36)])
    rows = choices.NORM.rows({"update_norm": deep.filter(pl.col("role") != "embed")}, CORE)
    offered = rows["layer"].unique(maintain_order=True).to_list()
    assert offered == [ALL, "0", "6", "12", "18", "24", "30"] and len(offered) == DEPTHS + 1
