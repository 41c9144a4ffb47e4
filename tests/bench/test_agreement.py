"""Two measurements agree where every value is within the bounds that both store, and say where they do not."""

import math

import polars as pl
import pytest
import torch

from opd_ops.geometry.suite import Settings, measure_matrix
from pipelines import lake
from pipelines.lake import TABLES
from pipelines.store.objects import Store
from tests.bench import synthetic
from tests.bench.agreement import compare, compare_tables, shown

NAME = {"study": "external", "recipe": "external.mine", "seed": 0, "layer": 0, "role": "q", "dtype": "bf16"}


def drift(step: int, nss: float | None, error: float | None = 1e-6) -> dict:
    keys = {"matrix": "a", "step": step, "view": "bf16"}
    return keys | {"nss": nss, "mirsky": 0.5, "error": error, "method": "spectral-f64/3"}


def compared(table, before, after):
    """The comparison of one table, given as rows."""
    schema = {name: dtype for name, dtype in TABLES[table].schema.items() if name in before[0]}
    (found,) = compare_tables({table: pl.DataFrame(before, schema=schema)}, {table: pl.DataFrame(after, schema=schema)})
    return found, {column.name: column for column in found.columns}


def test_values_within_both_bounds_agree():
    found, columns = compared("spectral_drift", [drift(1, 0.1), drift(2, 0.2)], [drift(1, 0.1), drift(2, 0.2 + 1.5e-6)])
    assert found.agrees and (found.rows, found.before, found.after) == (2, 0, 0)
    assert set(columns) == {"nss", "mirsky"}
    assert columns["nss"].share == pytest.approx(0.75) and columns["nss"].where["step"] == 2
    assert (columns["nss"].values, columns["nss"].bound) == (2, 2e-6)
    assert "DIFFER" not in shown([found])


def test_one_value_out_of_its_bounds_is_found_and_named():
    before = [drift(step, 0.1) for step in range(1, 6)]
    after = [drift(step, 0.1 + (3e-6 if step == 4 else 1e-6)) for step in range(1, 6)]
    found, columns = compared("spectral_drift", before, after)
    assert not found.agrees and columns["nss"].share == pytest.approx(1.5)
    assert columns["nss"].where == {"matrix": "a", "step": 4, "view": "bf16"}
    line = next(line for line in shown([found]).splitlines() if "nss" in line)
    assert "1.5" in line and "DIFFER" in line and "matrix a, step 4, view bf16" in line


def test_the_largest_difference_is_told_beside_bounds_that_say_nothing():
    found, columns = compared(
        "spectral_drift", [drift(1, 0.1, 1.0), drift(2, 0.1)], [drift(1, 0.4, 1.0), drift(2, 0.1)]
    )
    assert found.agrees and columns["nss"].largest == pytest.approx(0.3) and columns["nss"].share < 0.2


def test_a_bound_of_zero_holds_equal_values_alone():
    assert compared("spectral_drift", [drift(1, 0.0, 0.0)], [drift(1, 0.0, 0.0)])[0].agrees
    found, columns = compared("spectral_drift", [drift(1, 0.0, 0.0)], [drift(1, 1e-300, 0.0)])
    assert not found.agrees and columns["nss"].share == math.inf


def test_a_value_that_is_no_number_agrees_with_none():
    for before, after in ((0.1, math.nan), (math.nan, 0.1), (math.nan, math.nan)):
        assert not compared("spectral_drift", [drift(1, before)], [drift(1, after)])[0].agrees


def test_rows_of_one_side_are_counted_and_do_not_differ():
    found, columns = compared(
        "spectral_drift", [drift(step, 0.1) for step in (1, 2, 3)], [drift(2, 0.1), drift(9, 0.1)]
    )
    assert found.agrees and (found.rows, found.before, found.after) == (1, 2, 1) and columns["nss"].values == 1
    assert "2 only before, 1 only after" in shown([found])
    row = pl.DataFrame([drift(1, 0.1)])
    before, after = compare_tables({"spectral_drift": row}, {"hill": row})
    assert (before.table, before.rows, before.before, before.after) == ("spectral_drift", 0, 1, 0)
    assert (after.table, after.rows, after.before, after.after) == ("hill", 0, 0, 1)


def test_a_value_that_was_lost_differs_and_one_that_was_gained_does_not():
    lost, columns = compared("spectral_drift", [drift(1, 0.1)], [drift(1, None, None)])
    assert not lost.agrees and (columns["nss"].lost, columns["nss"].values) == (1, 0) and "1 lost" in shown([lost])
    gained, columns = compared("spectral_drift", [drift(1, None, None)], [drift(1, 0.1)])
    assert gained.agrees and columns["nss"].gained == 1 and "1 gained" in shown([gained])


def rotation(angles, error, angle_error, **columns):
    keys = {"matrix": "a", "step": 1, "view": "bf16", "side": "input", "k": 2}
    found = {"mean_deg": 1.0, "rms_deg": 1.0, "max_deg": 1.0, "angles_deg": angles, "gap": 1.0, "error_deg": error}
    return keys | found | {"angle_error_deg": angle_error, "delta": 1.0, "iterations": 3} | columns


def test_lists_are_held_to_the_bound_of_each_entry_and_margins_are_no_values():
    before = [rotation([1.0, 2.0], 0.0, 0.1)]
    found, columns = compared("rotation", before, [rotation([1.0, 2.15], 0.0, 0.1, delta=2.0, iterations=9)])
    assert found.agrees and columns["angles_deg"].share == pytest.approx(0.75)
    assert set(columns) == {"mean_deg", "rms_deg", "max_deg", "angles_deg", "gap"}
    assert not compared("rotation", before, [rotation([1.0, 2.25], 0.0, 0.1)])[0].agrees
    shorter, columns = compared("rotation", before, [rotation([1.0], 0.0, 0.1)])
    assert not shorter.agrees and columns["angles_deg"].lost == 1


def test_nulls_in_a_list_are_no_values():
    keys = {"matrix": "a", "step": 1, "view": "bf16", "null": "shuffled"}
    cut = pl.DataFrame([keys | {"hill": [2.0, None]}])
    assert compare_tables({"nulls": cut}, {"nulls": cut})[0].agrees
    (found,) = compare_tables({"nulls": pl.DataFrame([keys | {"hill": [2.0, 1.0]}])}, {"nulls": cut})
    assert not found.agrees and found.columns[0].lost == 1
    (found,) = compare_tables({"nulls": cut}, {"nulls": pl.DataFrame([keys | {"hill": [2.0, 1.0]}])})
    assert found.agrees and found.columns[0].gained == 1


def test_bounds_of_values_without_an_error_column_follow_from_others():
    """nss_k = ||(3, 4)|| / 50; spectral_norm from the stable rank's bound; tolerances for the rest."""
    keys = {"matrix": "a", "step": 1, "view": "bf16"}
    shift = keys | {"k": 4, "shifts": [3.0, 4.0], "nss_k": 0.1, "largest": 4.0, "error": 0.5}
    # Each side: sqrt(4) * 0.5 / 50.
    assert compared("singular_shift", [shift], [shift | {"nss_k": 0.1}])[1]["nss_k"].bound == pytest.approx(0.04)
    norm = keys | {"frobenius": 8.0, "relative_norm": 0.1, "spectral_norm": 2.0, "stable_rank": 16.0}
    norm |= {"stable_rank_error": 0.16, "rounding_norm": 0.5, "iid_stable_rank": 7.0}
    columns = compared("update_norm", [norm], [norm | {"spectral_norm": 2.01, "frobenius": 8.00001}])[1]
    assert columns["spectral_norm"].bound == pytest.approx(0.02, rel=0.01) and columns["spectral_norm"].share < 1
    assert columns["frobenius"].bound == pytest.approx(8e-6, rel=0.01) and columns["frobenius"].share > 1
    zero = norm | dict.fromkeys(("stable_rank", "stable_rank_error")) | {"spectral_norm": 0.0}
    assert compared("update_norm", [zero], [zero])[0].agrees


def test_a_bound_that_only_one_side_stores_counts():
    keys = {"matrix": "a", "step": 1, "view": "bf16", "null": "shuffled", "final_step": 1, "stable_rank": 5.0}
    before, after = pl.DataFrame([keys]), pl.DataFrame([keys | {"stable_rank": 5.2, "stable_rank_error": 0.4}])
    (found,) = compare_tables({"nulls": before}, {"nulls": after})
    column = next(column for column in found.columns if column.name == "stable_rank")
    assert found.agrees and column.share == pytest.approx(0.5)


def test_rows_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="spectral_drift has 1 rows whose matrix, step, view repeat"):
        compared("spectral_drift", [drift(1, 0.1)] * 2, [drift(1, 0.1)])


def test_two_stores_are_compared_by_run(tmp_path):
    stores = [Store(f"file://{tmp_path}/{side}") for side in ("before", "after")]
    for store, nss in zip(stores, (0.1, 0.2), strict=True):
        lake.write(store, "spectral_drift", [NAME | drift(1, nss)], recipe="external.mine", seed=0)
    lake.write(stores[0], "hill", [], recipe="external.mine", seed=0)
    drifted, hill = compare(stores[0], stores[1], "external.mine")
    assert (drifted.table, drifted.rows, drifted.agrees) == ("spectral_drift", 1, False)
    assert (hill.table, hill.rows, hill.before, hill.after) == ("hill", 0, 0, 0)
    assert compare(stores[0], stores[0], "external.mine")[0].agrees


@pytest.mark.parametrize(
    ("kind", "m", "n", "update"),
    [("heavy", 576, 1536, "rl"), ("flat", 640, 544, "sft")],
    ids=["heavy", "flat: a gap at 8 and none at 16"],
)
def test_the_default_route_agrees_with_dense_float64(kind, m, n, update):
    """Every value of every table of the f32 and cached routes, within the bounds that they store."""
    torch.set_num_threads(1)
    w0 = synthetic.weight(kind, m, n, 3)
    steps = list(enumerate(synthetic.trajectory(w0, update, synthetic.UPDATES[update].rel, 2, 5), 1))
    tables = []
    for settings in (Settings(k=(8, 16), dense=True), Settings(k=(8, 16))):
        rows = measure_matrix(w0, steps, settings=settings, projection=True).rows
        schemas = {table: TABLES[table].schema.items() for table in rows}
        tables.append(
            {
                table: pl.DataFrame(mine, schema={name: dtype for name, dtype in schemas[table] if name in mine[0]})
                for table, mine in rows.items()
            }
        )
    found = compare_tables(tables[0], tables[1])
    assert len(found) == len(TABLES.keys() & tables[0].keys()) == 10
    assert all(table.agrees and table.rows and table.before == table.after == 0 for table in found), shown(found)
    dense, default = (side["rotation"]["method"][0] for side in tables)
    assert dense != default
