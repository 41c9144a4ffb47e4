"""Exponents and ratios on planted powers of the number of weights."""

import math

import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.paper.story import SIZES
from pipelines.statistics import scaling
from tests.pipelines.planted import STORY

NUMEL = {"": 200, "w64": 50, "w256": 800, "d4": 400, "llama": 240}
POWER = {"sft": 0.5, "opd": -0.25, "rlvr": 0.0}
RATIO = {"d4": 1.5, "llama": 0.8}


def value(size, arm, seed):
    """c_seed N^b by width, times a fixed ratio for the others."""
    if size in RATIO:
        return RATIO[size] * value("", arm, seed)
    return (1 + 0.1 * seed) * NUMEL[size] ** POWER[arm]


def rows(name, sizes, seeds, columns):
    """Two matrices a run at the end of it and at 10 % and 25 %, in both views."""
    made = []
    for size in sizes:
        for arm in SIZES.arms:
            for seed in seeds:
                for view in ("bf16", "master"):
                    for matrix in ("a", "b"):
                        keys = {"study": "s", "recipe": f"s.{scaling.arm_of(size, arm)}", "seed": seed}
                        keys |= {"matrix": matrix, "layer": 0, "role": "q", "view": view}
                        made += [keys | row for row in columns(size, arm, seed)]
    return pl.DataFrame(made, schema=TABLES[name].schema, orient="row").lazy()


def tables(sizes=tuple(NUMEL), seeds=(0, 1, 2)):
    steps = (10, 25, 100)

    def support(size, arm, seed):
        shared = {"numel": NUMEL[size] // 2, "scope": "projection"}
        return [shared | {"step": step, "unchanged": value(size, arm, seed) / 1000} for step in steps]

    def norms(size, arm, seed):
        found = value(size, arm, seed)
        return [
            {"step": step, "relative_norm": found, "stable_rank": 3 * found, "iid_stable_rank": NUMEL[size] ** 0.5}
            for step in steps
        ]

    def locking(size, arm, seed):
        return [
            {"step": step, "step_other": 100, "side": side, "k": 16, "similarity": 0.9 if side == "output" else 0.5}
            for step in steps[:2]
            for side in ("input", "output")
        ]

    makers = {"update_support": support, "update_norm": norms, "locking": locking}
    found = {name: rows(name, sizes, seeds, maker) for name, maker in makers.items()}
    return found | {"rotation": pl.LazyFrame(schema=TABLES["rotation"].schema)}


def one(found, **where):
    (row,) = found.filter(*(pl.col(key) == wanted for key, wanted in where.items())).iter_rows(named=True)
    return row


@pytest.mark.parametrize("arm", SIZES.arms)
def test_an_exact_power_of_the_weights_has_its_exponent_and_no_misfit(arm):
    found = scaling.scaling_rows("s", tables(), SIZES)
    row = one(found, metric="relative norm of the update", view="master", arm=arm, factor="width")
    assert row["value"] == pytest.approx(POWER[arm], abs=1e-12)
    assert row["seeds"] == 3 and row["misfit"] == pytest.approx(0, abs=1e-12)
    # Each seed has the same exponent, so the interval has no width.
    assert row["low"] == pytest.approx(row["high"], abs=1e-12)
    over_noise = one(found, metric="stable rank over that of noise of its shape", view="bf16", arm=arm, factor="width")
    assert over_noise["value"] == pytest.approx(POWER[arm] - 0.5, abs=1e-12)
    unchanged = one(found, metric="unchanged weights", view="bf16", arm=arm, factor="width")
    assert unchanged["value"] == pytest.approx(POWER[arm], abs=1e-12)


def test_depth_and_family_are_ratios_to_the_core_size():
    found = scaling.scaling_rows("s", tables(), SIZES)
    for factor, size in SIZES.ratios.items():
        row = one(found, metric="stable rank of the update", view="bf16", arm="opd", factor=factor)
        assert row["value"] == pytest.approx(RATIO[size]) and row["misfit"] is None
    same = one(found, metric="Sim_16 to the final step at 10 %", view="bf16", arm="sft", factor="depth")
    assert same["value"] == pytest.approx(1), "the input side alone"


def test_the_interval_is_students_over_the_seeds_exponents(monkeypatch):
    slopes = {0: 0.1, 1: 0.2, 2: 0.3}
    monkeypatch.setitem(POWER, "sft", None)
    monkeypatch.setattr(
        f"{__name__}.value", lambda size, arm, seed: NUMEL[size] ** (slopes[seed] if arm == "sft" else 0.0)
    )
    row = one(
        scaling.scaling_rows("s", tables(), SIZES),
        metric="relative norm of the update",
        view="bf16",
        arm="sft",
        factor="width",
    )
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert row["value"] == pytest.approx(0.2) and row["high"] - row["value"] == pytest.approx(half)


def test_sizes_that_are_missing_leave_their_rows_out_and_one_seed_has_no_interval():
    assert scaling.scaling_rows("s", tables(sizes=("",)), SIZES).is_empty()
    found = scaling.scaling_rows("s", tables(sizes=("", "w64", "d4"), seeds=(1,)), SIZES)
    assert set(found["factor"]) == {"depth"}, "two widths are no fit"
    assert found["low"].is_null().all() and set(found["seeds"]) == {1}
    assert scaling.scaling_rows("s", {}, SIZES).is_empty()


def test_the_grid_names_every_arm_and_factor():
    found = scaling.scaling_rows("s", tables(), SIZES)
    heading, *lines = scaling.format_grid(found, SIZES, STORY)
    assert heading == ["factor", "metric", "SFT", "OPD", "RLVR"]
    norms = {line[0]: line[2] for line in lines if line[1] == "relative norm of the update, master"}
    assert list(norms) == list(SIZES.titles.values())
    assert norms["exponent in weights"] == "+0.50" and norms["4 layers / 2"].startswith("1.50")
