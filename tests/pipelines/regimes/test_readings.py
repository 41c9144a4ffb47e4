"""Readings from planted rows of update_norm and locking."""

import polars as pl
import pytest

from pipelines.lake import TABLES
from pipelines.regimes.readings import MEASURED, READINGS, read_quantities

RUN = {"study": "s", "recipe": "s.a", "seed": 0}
STEPS = (0, 1, 2, 4, 8, 12)


def norm_rows(matrix, role="q", level=1.0, **changes):
    """relative norm step / 100 and stable rank level * step, at every step."""
    rows = []
    for step in STEPS:
        row = {"matrix": matrix, "role": role, "view": "master", "step": step}
        row |= {"relative_norm": step / 100, "stable_rank": level * step}
        rows.append(RUN | row | changes)
    return rows


def pair_rows(matrix, role="q", side="input", k=16, **changes):
    """Sim of every pair: the earlier step over the later."""
    return [
        RUN
        | {"matrix": matrix, "role": role, "view": "master", "side": side, "k": k, "step": a, "step_other": b}
        | {"similarity": a / b}
        | changes
        for b in STEPS
        for a in STEPS
        if 0 < a < b
    ]


def read(norms, pairs):
    return read_quantities(
        pl.DataFrame(norms, schema=TABLES["update_norm"].schema), pl.DataFrame(pairs, schema=TABLES["locking"].schema)
    )


def values(found, quantity):
    rows = found.filter(quantity=quantity)
    return dict(rows.select("step", "value").iter_rows())


@pytest.fixture
def found():
    """Two projections of level 1 and 3, and an embedding that does not count."""
    norms = norm_rows("one") + norm_rows("two", level=3.0) + norm_rows("embed", role="embed", level=99.0)
    pairs = pair_rows("one") + pair_rows("two", similarity=0.0) + pair_rows("one", side="output", similarity=0.9)
    return read(norms, pairs + pair_rows("one", k=4, similarity=0.9))


def test_every_snapshot_but_the_start_has_every_quantity(found):
    assert found.schema == READINGS
    assert sorted(set(found["quantity"])) == sorted(MEASURED)
    assert all(list(values(found, quantity)) == [1, 2, 4, 8, 12] for quantity in MEASURED)


def test_values_are_means_over_projections(found):
    assert values(found, "stable_rank") == {step: 2.0 * step for step in STEPS[1:]}
    assert values(found, "relative_norm") == pytest.approx({step: step / 100 for step in STEPS[1:]})
    norms = found.filter(quantity="stable_rank").select("step", "relative_norm").rows()
    assert norms == [(step, pytest.approx(step / 100)) for step in STEPS[1:]]


def test_comparisons_are_with_the_earlier_snapshot(found):
    earlier = {2: 1, 4: 2, 8: 4, 12: 4}
    assert values(found, "stable_rank_ratio") == {1: None, **{now: now / then for now, then in earlier.items()}}
    # Input side at rank 16 alone, one of two matrices at 0.
    assert values(found, "similarity_previous") == {1: None, **{now: then / now / 2 for now, then in earlier.items()}}


def test_a_value_that_one_matrix_lacks_is_none():
    norms = norm_rows("one") + norm_rows("two")
    norms[-1]["stable_rank"] = None
    found = read(norms, pair_rows("one"))
    assert values(found, "stable_rank")[12] is None and values(found, "stable_rank")[8] == 8.0
    assert values(found, "stable_rank_ratio")[12] is None
    assert values(found, "relative_norm")[12] == pytest.approx(0.12)


def test_runs_and_views_stay_apart():
    norms = norm_rows("one") + norm_rows("one", level=5.0, seed=1) + norm_rows("one", level=7.0, view="bf16")
    found = read(norms, pair_rows("one"))
    at = found.filter(quantity="stable_rank", step=4).select("seed", "view", "value").rows()
    assert at == [(0, "bf16", 28.0), (0, "master", 4.0), (1, "master", 20.0)]
    assert found.filter(quantity="similarity_previous", seed=1)["value"].null_count() == 5
