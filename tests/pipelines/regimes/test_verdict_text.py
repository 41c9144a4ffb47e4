"""Comparisons as rows of the table and in sentences."""

import math

import polars as pl
import pytest

from pipelines.lake.schemas import TABLES
from pipelines.regimes.rows import regime_rows
from pipelines.regimes.verdict_text import describe_verdict


def test_rows_have_every_diagnostic_reference_and_budget_in_natural_units(judged, planted):
    found = judged(planted(recipe="external.near", kind=1.2))
    frame = pl.DataFrame(regime_rows(found), schema=TABLES["regime"].schema, orient="row")
    assert frame.height == (10 + 7 + 2) * 2 * 3  # diagnostics of both views and their combinations, budgets, references
    keys = ["view", "budget", "diagnostic", "reference"]
    assert frame.select(keys).n_unique() == frame.height
    (row,) = frame.filter(view="master", budget="norm", diagnostic="effective_rank", reference="tiny.rlvr").to_dicts()
    assert row["value"] == pytest.approx(0.5 * math.exp(0.12)) and row["scale"] == "log"
    assert row["reference_value"] == pytest.approx(0.5 * math.exp(0.2))
    assert row["spread"] == pytest.approx(0.02) and row["distance"] == pytest.approx(4.0)
    assert (row["relative_norm"], row["budget_step"]) == (pytest.approx(6.4e-3), 64)
    assert (row["study"], row["recipe"], row["seed"], row["step"]) == ("external", "external.near", 0, 64)
    (row,) = frame.filter(view="bf16", budget="norm", diagnostic="combined", reference="tiny.opd").to_dicts()
    assert row["distance"] == pytest.approx(1.0) and row["confusion"] == pytest.approx(1.5)
    verdicts = {budget: set(frame.filter(budget=budget)["verdict"]) for budget in ("norm", "end")}
    assert verdicts == {"norm": {"OPD-like"}, "end": {"RLVR-like"}}  # it ends where rlvr's runs end
    assert set(frame["regime"]) == {"OPD-like"}
    assert frame.filter(budget="end")["relative_norm"].null_count() == frame.filter(budget="end").height


def test_rows_say_what_was_left_out_and_why_one_cannot_tell(judged, planted):
    found = regime_rows(judged(planted(recipe="external.big", kind=1.0, noise_rank=1024.0)))
    (row,) = [r for r in found if (r["view"], r["budget"], r["diagnostic"]) == ("bf16", "norm", "hill")][:1]
    assert row["reason"] == "the references' matrices have other shapes" and "distance" not in row
    found = regime_rows(judged(planted(recipe="external.out", kind=1.0, rate=1e-6), step=64))
    there = [r for r in found if r["budget"] == "norm"]
    assert {r["diagnostic"] for r in there} == {"combined"} and len(there) == 6
    assert all("no budget" in r["reason"] and r["distance"] is None for r in there)
    assert pl.DataFrame(found, schema=TABLES["regime"].schema, orient="row").height == len(found)


def test_a_sentence_has_the_verdict_the_budget_and_every_distance(judged, planted):
    far = "relative norm 0.0064 (step 64 of 64): 1 from OPD, 4 from RLVR, 6 from SFT."
    told = describe_verdict(judged(planted(recipe="external.near", kind=1.2)))
    assert told == f"external.near seed 0 at step 64 is OPD-like. In bf16, {far} In master, {far}"


def test_a_run_that_was_compared_before_its_end_says_so(judged, planted):
    told = describe_verdict(judged(planted(recipe="external.far", kind=1.0, rate=2e-4)))
    assert "(step 32 of 64, the farthest that every reference went)" in told


def test_a_run_that_looks_like_another_objective_says_that_geometry_does_not_tell(judged, planted):
    told = describe_verdict(judged(planted(recipe="tiny.sft-matched", kind=1.0, objective="sft")))
    assert "It was trained by sft: where both moved equally far, its geometry is that of OPD" in told
    assert "trained by" not in describe_verdict(judged(planted(recipe="tiny.other", kind=1.0, objective="opd")))


def test_cannot_tell_says_why(judged, planted):
    told = describe_verdict(judged(planted(recipe="external.between", kind=0.5)))
    assert told.startswith("external.between seed 0 at step 64: cannot tell. In bf16, it is 2.5 from ")
    told = describe_verdict(judged(planted(recipe="external.torn", kind=1.0, turn=1.0)))
    assert "since the views disagree. In bf16 RLVR-like; in master OPD-like." in told
    assert "there is no budget to compare at" in describe_verdict(
        judged(planted(recipe="external.out", kind=1.0, rate=1e-6))
    )
