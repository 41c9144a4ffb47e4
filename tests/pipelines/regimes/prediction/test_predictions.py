"""Planted studies: locking that goes with accuracy, that does not, and that does only because arms differ."""

from collections.abc import Callable

import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.regimes.prediction.predictions import NOISE, SHARES, prediction_rows
from pipelines.regimes.prediction.text import describe_prediction

ARMS = ("sft", "opd", "rlvr", "mix", "pg", "top")
SIBLINGS = ARMS[1:]
VALUES = dict(zip(ARMS, (0.3, 0.45, 0.6, 0.7, 0.8, 0.9), strict=True))


def plant(
    locked: Callable[[str, int], float],
    accuracy: Callable[[str, int], float],
    seeds: int = 3,
    families: dict[str, Callable[[str, int], float]] | None = None,
    stderr: float = 0.01,
) -> dict[str, pl.LazyFrame]:
    """Tables of six arms. locked, accuracy: by arm and seed; every run starts at accuracy 0.2 and has 100 steps."""
    rows = {"locking": [], "evaluation": [], "transfer": []}
    for arm in ARMS:
        for seed in range(seeds):
            run = {"study": "tiny", "recipe": f"tiny.{arm}", "seed": seed}
            for view in ("bf16", "master"):
                for step in (5, 10, 20, 60):
                    for role, factor in (("q", 0.9), ("k", 1.1), ("embed", 9.0)):
                        keys = {"step": step, "step_other": 100, "side": "input", "k": 16, "view": view, "role": role}
                        similarity = locked(arm, seed) * factor
                        rows["locking"].append(run | keys | {"matrix": role, "similarity": similarity})
            for step, value in ((0, 0.2), (100, accuracy(arm, seed))):
                for temperature in (0.0, 1.0):
                    found = {"temperature": temperature, "accuracy": value if temperature else 0.5, "stderr": stderr}
                    rows["evaluation"].append(run | {"step": step} | found)
            for name, family in (families or {}).items():
                for step, value in ((0, 0.1), (100, family(arm, seed))):
                    found = {"family": name, "temperature": 1.0, "accuracy": value, "stderr": stderr}
                    rows["transfer"].append(run | {"step": step} | found)
    return {name: pl.DataFrame(made, schema=TABLES[name].schema, orient="row").lazy() for name, made in rows.items()}


def pick(frame: pl.DataFrame, **where) -> dict:
    fixed = {"view": "master", "share": 0.10, "outcome": "accuracy", "scope": "pooled", "coefficient": "pearson"}
    (row,) = frame.filter(**(fixed | where)).to_dicts()
    return row


def jitter(seed: int) -> float:
    return 0.01 * (seed - 1)


def test_there_is_a_row_for_every_view_share_outcome_scope_and_coefficient():
    locked = lambda arm, seed: VALUES[arm] + jitter(seed)
    found = prediction_rows("tiny", plant(locked, locked, families={"far": locked}), SIBLINGS)
    assert found.schema == TABLES["predictions"].schema
    assert found.height == 2 * len(SHARES) * 3 * 3 * 2
    assert set(found["study"]) == {"tiny"} and found["family"].unique().sort().to_list() == [None, "far"]


def test_perfect_locking_is_found_in_every_scope_and_outcome():
    locked = lambda arm, seed: VALUES[arm] + jitter(seed)
    found = prediction_rows("tiny", plant(locked, locked, families={"far": lambda a, s: 1 - locked(a, s)}), SIBLINGS)
    for outcome, sign in (("accuracy", 1.0), ("gain", 1.0), ("transfer", -1.0)):
        for scope, runs in (("pooled", 18), ("one start", 15), ("within arms", 18)):
            for coefficient in ("pearson", "spearman"):
                row = pick(found, outcome=outcome, scope=scope, coefficient=coefficient)
                assert row["correlation"] == pytest.approx(sign)
                assert (row["runs"], row["seeds"]) == (runs, 3)
    row = pick(found)
    assert (row["low"], row["high"]) == pytest.approx((1.0, 1.0)) and row["p_value"] < 0.01 and row["note"] == ""


def test_arms_confound_and_within_them_nothing_is_left():
    spread = {0: -0.02, 1: 0.04, 2: -0.02}
    found = prediction_rows(
        "tiny", plant(lambda a, s: VALUES[a] + jitter(s), lambda a, s: VALUES[a] + spread[s]), SIBLINGS
    )
    assert pick(found)["correlation"] > 0.98
    assert pick(found, scope="within arms")["correlation"] == pytest.approx(0, abs=1e-9)


def test_no_correlation_is_zero_with_an_interval_around_it():
    value = dict(zip(ARMS, (0.5, 0.2, 0.4, 0.4, 0.2, 0.5), strict=True))  # a parabola over the arms' order
    found = prediction_rows("tiny", plant(lambda a, s: ARMS.index(a) / 10 + 0.2, lambda a, s: value[a]), SIBLINGS)
    row = pick(found)
    assert row["correlation"] == pytest.approx(0, abs=1e-9)
    assert row["low"] < -0.3 and row["high"] > 0.3 and row["p_value"] > 0.9


def test_within_arms_three_seeds_have_no_interval_and_no_small_p():
    found = prediction_rows("tiny", plant(*[lambda a, s: VALUES[a] + jitter(s)] * 2), SIBLINGS)
    row = pick(found, scope="within arms")
    assert row["low"] is None and row["high"] is None
    assert row["note"].startswith("6 arms and 3 seeds: no interval") and row["p_value"] == pytest.approx(
        1 / 3, abs=0.02
    )
    enough = prediction_rows("tiny", plant(*[lambda a, s: VALUES[a] + jitter(s)] * 2, seeds=5), SIBLINGS)
    assert pick(enough, scope="within arms")["low"] == pytest.approx(1.0)


def test_one_seed_has_no_interval_and_says_so():
    found = prediction_rows("tiny", plant(*[lambda a, s: VALUES[a]] * 2, seeds=1), SIBLINGS)
    row = pick(found)
    assert row["correlation"] == pytest.approx(1.0) and row["low"] is None
    assert row["note"] == "6 arms and 1 seeds: no interval"
    assert found.filter(scope="within arms").is_empty()


def test_two_runs_have_no_correlation():
    tables = plant(*[lambda a, s: VALUES[a]] * 2, seeds=1)
    two = {name: frame.filter(pl.col("recipe").is_in(["tiny.sft", "tiny.opd"])) for name, frame in tables.items()}
    row = pick(prediction_rows("tiny", two, SIBLINGS))
    assert row["correlation"] is None and row["p_value"] is None and row["note"] == "2 runs: no correlation"


def test_an_outcome_that_does_not_vary_is_said():
    row = pick(prediction_rows("tiny", plant(lambda a, s: VALUES[a], lambda a, s: 0.5), SIBLINGS))
    assert row["correlation"] is None and row["note"] == "one side does not vary"


def test_an_outcome_within_its_sampling_error_is_said():
    floor = lambda arm, seed: 0.1 + 0.01 * VALUES[arm]
    found = prediction_rows("tiny", plant(lambda a, s: VALUES[a], floor, stderr=0.02), SIBLINGS)
    assert NOISE in pick(found)["note"]
    found = prediction_rows("tiny", plant(lambda a, s: VALUES[a], floor, stderr=0.001), SIBLINGS)
    assert NOISE not in pick(found)["note"]


def test_similarity_is_the_projections_to_the_last_step_at_the_nearest_snapshot():
    tables = plant(lambda a, s: VALUES[a], lambda a, s: VALUES[a])
    decoy = tables["locking"].with_columns(step_other=pl.lit(60, pl.Int64()), similarity=pl.lit(0.0))
    outer = tables["locking"].with_columns(side=pl.lit("output"), similarity=pl.lit(0.0))
    tables["locking"] = pl.concat([tables["locking"], decoy.filter(pl.col("step") < 60), outer])
    assert pick(prediction_rows("tiny", tables, SIBLINGS))["correlation"] == pytest.approx(1.0)


def test_nothing_measured_is_no_rows_and_no_words():
    found = prediction_rows("tiny", {}, SIBLINGS)
    assert found.is_empty() and found.schema == TABLES["predictions"].schema and describe_prediction(found) == ""


def test_words_give_the_correlation_its_interval_and_the_caveat():
    found = prediction_rows("tiny", plant(*[lambda a, s: VALUES[a] + jitter(s)] * 2), SIBLINGS)
    told = describe_prediction(found)
    assert told.startswith(
        "Over 18 runs of 3 seeds, Sim_16 at 10 % of training (masters) and final accuracy have a rank"
    )
    assert "1.00 [1.00 to 1.00; p " in told and "within arms 1.00 [no interval; p 0.3" in told
    assert told.endswith("only the correlation within arms is free of that.")
