"""The job that compares a study's runs: verdicts, checks and the report, and what it says of runs that are missing."""

import dagster as dg
import polars as pl
import torch

from assets import verdicts
from assets.partitions import STUDIES
from pipelines.paper.claims import CLAIMS
from pipelines.runs.verdicts import comparing
from pipelines.store.trajectory import Trajectory
from tests.assets.conftest import checks, shown

TINY = STUDIES["tiny"]
SFT, OPD = TINY.every_arm()[:2]


def test_a_comparison_writes_verdicts_and_the_report(store, execute, plant):
    plant()
    result = execute("comparison", "tiny")
    assert result.success
    rows = pl.read_parquet(store.path("lake/verdicts/study=tiny/part-0.parquet"))
    assert set(rows["claim"]) == {claim.text for claim in CLAIMS if claim.suite == "core"}
    assert set(rows["seeds"]) == {3}
    found = shown(result)
    assert found["verdicts"]["dagster/partition_row_count"].value == rows.height
    assert found["report"]["dagster/uri"].value == f"{store.uri}/reports/tiny/index.html"
    page = store.read("reports/tiny/index.html").decode()
    assert page.startswith("<!doctype html>") and "Study tiny: " in page
    assert comparing.is_compared(store, TINY)
    assert "data:image/png;base64," in found["report"]["stable-rank"].value


def test_orderings_that_hold_pass_and_runs_that_are_missing_are_named(store, execute, plant):
    plant()
    result = execute("comparison", "tiny", "verdicts")
    found = checks(result)
    assert set(found) == {f"orderings_{family}" for family in verdicts.FAMILIES}
    assert found["orderings_rotation"].passed
    assert found["orderings_rotation"].metadata["hold"].value == 4
    assert shown(result)["verdicts"]["missing"].value == names(TINY.arms("core"))


def names(arms):
    return [f"{arm.name} seed {seed}" for arm in arms for seed in TINY.seeds]


def test_a_suite_that_nobody_has_begun_is_not_missing(store, execute, settle, plant):
    plant()
    settle(store, SFT)
    assert comparing.started_suites(store, TINY) == ["core"] and comparing.list_missing(store, TINY) == names(
        TINY.arms("core")
    )
    settle(store, TINY.arms("objectives")[3], 1)
    assert comparing.started_suites(store, TINY) == ["core", "objectives"]
    missing = shown(execute("comparison", "tiny", "verdicts"))["verdicts"]["missing"].value
    assert missing == comparing.list_missing(store, TINY) == names((*TINY.arms("core"), *TINY.arms("objectives")))


def test_missing_runs_are_counted_and_a_few_are_named(store, execute, instance, plant):
    plant()
    result = execute("comparison", "tiny", "verdicts")
    (told,) = [log.user_message for log in instance.all_logs(result.run_id) if "not measured" in log.user_message]
    assert told == (
        "12 runs are not measured yet, and left out: "
        "tiny.sft seed 0, tiny.sft seed 1, tiny.sft seed 2, tiny.opd seed 0 and so on"
    )


def test_measured_arms_of_the_suite_objectives_are_shown(store, execute, plant):
    plant()
    assert "objectives" not in shown(execute("comparison", "tiny"))["report"]
    assert 'id="suite-objectives"' not in store.read("reports/tiny/index.html").decode()
    plant(more=("opd-pg", "opd-mix-50"))
    table = shown(execute("comparison", "tiny"))["report"]["objectives"].value
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| OPD", "| RLVR", "| opd-pg", "| opd-mix-50"]
    assert 'id="suite-objectives"' in store.read("reports/tiny/index.html").decode()


def test_orderings_that_are_contradicted_warn_with_the_measured_values(store, execute, plant):
    plant(opd={"size": 20.0})
    result = execute("comparison", "tiny", "verdicts")
    assert result.success
    found = checks(result)
    for family in ("rotation", "spectral_drift", "update_norm"):
        check = found[f"orderings_{family}"]
        assert not check.passed
        assert check.severity == dg.AssetCheckSeverity.WARN
    check = found["orderings_rotation"]
    assert (check.metadata["contradicted"].value, check.metadata["hold"].value) == (2, 2)
    assert "| 13 | 20 |" in check.metadata["measured"].value
    assert found["orderings_update_support"].passed


def test_a_comparison_of_runs_of_another_recipe_fails_in_one_line(store, execute):
    recipe = OPD.identity() | {"arm": "odp"}
    facts = {"identity": recipe, "fingerprint": "another", "inputs": {}, "provenance": {}}
    trajectory = Trajectory(store, "tiny.opd", 0)
    trajectory.register(facts)
    for step in (0, 1):  # a run without a snapshot past step 0 would give way
        trajectory.commit(step, {"weight": torch.zeros(2, 2)}, None)
    result = execute("comparison", "tiny", "verdicts")
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    told = failed.step_failure_data.user_failure_data.description
    assert told.startswith("runs/tiny.opd/seed-0 holds a run of another recipe") and "\n" not in told
