"""The sections on regimes, prediction and size: what they say of planted rows, and that they say nothing of none."""

import polars as pl

from pipelines.lake.schemas import TABLES
from pipelines.report import questions


def rows(table, made):
    return pl.DataFrame(made, schema=TABLES[table].schema, orient="row")


def judged(recipe, seed, regime, distances, view="bf16", step=100):
    shared = {"study": "s", "recipe": recipe, "seed": seed, "step": step, "view": view, "budget": "norm"}
    return [
        shared | {"diagnostic": "combined", "reference": f"s.{arm}", "distance": far, "regime": regime}
        for arm, far in zip(("sft", "opd", "rlvr"), distances, strict=True)
    ]


def test_a_regime_is_told_with_its_runs_and_the_range_of_its_distances():
    made = judged("s.opd-pg", 0, "RLVR-like", (20.0, 8.0, 3.0)) + judged("s.opd-pg", 1, "RLVR-like", (21.0, 9.0, 1.0))
    made += judged("s.opd", 0, "cannot tell", (12.0, 1.0, 9.0), step=50)
    made += judged("s.opd", 0, "OPD-like", (13.0, 1.5, 9.0))
    told = questions.regimes(rows("regime", made).lazy())
    assert "RLVR-like (2)" in told and "8.0 to 9.0" in told and "1.0 to 3.0" in told
    assert "OPD-like (1)" in told and "cannot tell" not in told, "the last judged step speaks for a run"
    assert told.count("<tr>") == 1 + 2 and "spread over seeds" in told


def test_other_budgets_and_single_diagnostics_are_not_in_the_table():
    end = [row | {"budget": "end"} for row in judged("s.opd", 0, "OPD-like", (1.0, 2.0, 3.0))]
    single = [row | {"diagnostic": "nss"} for row in judged("s.opd", 0, "OPD-like", (1.0, 2.0, 3.0))]
    assert questions.regimes(rows("regime", end + single).lazy()) == ""
    assert questions.regimes(pl.LazyFrame(schema=TABLES["regime"].schema)) == ""


def test_correlations_are_told_in_a_sentence_and_listed():
    shared = {"study": "s", "view": "master", "share": 0.1, "outcome": "accuracy", "coefficient": "spearman"}
    shared |= {"runs": 27, "seeds": 3, "note": ""}
    made = [
        shared | {"scope": "pooled", "correlation": 0.9, "low": 0.67, "high": 1.0, "p_value": 1e-4},
        shared | {"scope": "within arms", "correlation": 0.17, "p_value": 1.0},
    ]
    told = questions.predicted(rows("predictions", made))
    assert "0.90 [0.67 to 1.00" in told and "0.17 [no interval" in told and "27" in told
    assert questions.predicted(rows("predictions", [])) == ""


def test_sizes_say_what_cannot_be_said_and_are_absent_without_a_second_size():
    assert questions.sizes("s", {}) == ""
