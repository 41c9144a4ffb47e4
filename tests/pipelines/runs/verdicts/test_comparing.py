"""A comparison: what it reads, and what it writes."""

import polars as pl
import pytest

from pipelines import lake
from pipelines.paper.claims import CLAIMS
from pipelines.runs.verdicts import comparing
from pipelines.store.objects import Store
from pipelines.studies.catalog import find_study
from tests.pipelines.planted import plant_study

TINY = find_study("tiny")


@pytest.fixture
def store(tmp_path) -> Store:
    """A lake with core, two arms of other suites, and another study's evaluation."""
    store = Store(f"file://{tmp_path}/store")
    for name, frame in plant_study("tiny", more=("opd-pg", "rlvr-norm")).items():
        for (recipe, seed), rows in frame.collect().group_by("recipe", "seed"):
            lake.write(store, name, rows, recipe=str(recipe), seed=int(str(seed)))
    row = {"study": "other", "recipe": "other.opd", "seed": 0, "step": 1, "temperature": 1.0, "accuracy": 0.5}
    lake.write(store, "evaluation", [row], recipe="other.opd", seed=0)
    return store


def test_it_reads_the_runs_of_its_own_study_and_no_comparison(store):
    found = comparing.read_tables(store, TINY)
    assert {"rotation", "evaluation", "nulls"} <= set(found) and not {"verdicts", "means", "bench"} & set(found)
    assert found["evaluation"].collect()["study"].unique().to_list() == ["tiny"]


def test_verdicts_and_means_are_written_for_the_study(store):
    rows = comparing.decide_claims(store, TINY)
    stored = lake.scan("verdicts", store.uri).collect()
    assert stored.equals(rows) and stored["study"].unique().to_list() == ["tiny"]
    assert set(stored["claim"]) < {claim.text for claim in CLAIMS}
    means = lake.scan("means", store.uri).collect()
    assert {"opd", "opd-pg", "rlvr-norm"} <= set(means["arm"]) and means["study"].unique().to_list() == ["tiny"]
    again = comparing.decide_claims(store, TINY)
    assert again.equals(rows) and lake.scan("means", store.uri).collect().equals(means)


def test_the_suites_that_are_measured_are_tables_of_their_own(store):
    found = comparing.render_suites(store, TINY)
    assert list(found) == ["objectives", "controls"]
    assert "| opd-pg |" in found["objectives"] and "| rlvr-norm |" in found["controls"]


def test_a_study_without_rows_has_no_suites(tmp_path):
    empty = Store(f"file://{tmp_path}/empty")
    (tmp_path / "empty").mkdir()
    assert comparing.decide_claims(empty, TINY).is_empty() and comparing.render_suites(empty, TINY) == {}
    assert pl.read_parquet(empty.path("lake/means/study=tiny/part-0.parquet")).is_empty()
