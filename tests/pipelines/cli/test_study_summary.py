"""The last lines of `opd study run`, and `opd study verdicts`."""

import csv
import io
from dataclasses import replace

import polars as pl
import pytest

from pipelines import lake
from pipelines.cli.study_summary import LINES, describe_page, summarise_study
from pipelines.runs.verdicts import comparing
from pipelines.store.objects import Store, default_uri
from pipelines.studies.catalog import find_study
from tests.pipelines.planted import plant_study

TINY = find_study("tiny")
TIME = "training 4 min 10 s, measuring 1 min 25 s, orchestration 48 s (13 %)"


@pytest.fixture
def fill(here):
    """fill(study, more=, keep=): the lake with planted runs of these arms of a study, decided; the store."""

    def write(study=TINY, more=(), keep=lambda recipe, seed: True):
        store = Store(default_uri())
        for name, frame in plant_study(study.name, more=more).items():
            for (recipe, seed), rows in frame.collect().group_by("recipe", "seed"):
                if keep(recipe, seed):
                    lake.write(store, name, rows, recipe=str(recipe), seed=int(str(seed)))
        comparing.decide_claims(store, study)
        return store

    return write


@pytest.fixture(params=[80, 100, 120])
def columns(request, monkeypatch):
    """The width of the terminal."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def test_a_study_ends_with_what_was_decided_in_fifteen_lines_that_fit(fill, columns):
    store = fill()
    lines = summarise_study(store, TINY, ["core"], TIME).splitlines()
    assert len(lines) <= LINES and max(map(len, lines[:-1])) <= columns, "a path alone may be longer"
    rows = lake.scan("verdicts", store.uri).collect()
    counted = {status: int((rows["status"] == status).sum()) for status in ("holds", "fails", "undecided")}
    assert lines[0].startswith(f"tiny: {len(rows)} statements: {counted['holds']} hold")
    named = [line for line in lines if line.startswith(("fails ", "undecided "))]
    assert len(named) == sum(counted[status] > 0 for status in ("fails", "undecided"))
    heading = next(place for place, line in enumerate(lines) if line.startswith("mean "))
    assert [line.split("  ")[0].split(",")[0] for line in lines[heading + 1 : heading + 5]] == [
        "unchanged",
        "rotation",
        "stable rank",
        "accuracy T=1",
    ]
    assert "SFT" in lines[heading] and lines[-1] == "page: .opd/store/reports/tiny/index.html (open it in a browser)"


def test_every_failing_and_open_statement_is_named_or_counted(fill, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    store = fill()
    lines = summarise_study(store, TINY, ["core"]).splitlines()
    rows = lake.scan("verdicts", store.uri).collect()
    for status in ("fails", "undecided"):
        claims = rows.filter(status=status)["claim"].to_list()
        shown = sum(any(line[11:].startswith(f"{claim}: ") for line in lines) for claim in claims)
        (more,) = [line for line in lines if line.endswith(f"--status {status}")] or [f"and {len(claims) - shown} more"]
        assert f"and {len(claims) - shown} more" in more


def test_arms_of_any_name_have_their_column(fill, monkeypatch):
    """Nothing here knows the arms of `tiny`."""
    monkeypatch.setenv("COLUMNS", "120")
    store = fill()
    renamed = {"sft": "distill", "opd": "grpo", "rlvr": "mine", "sft-matched": "control"}
    arms = tuple(replace(recipe, arm=renamed[recipe.arm]) for recipe in TINY.arms())
    study = replace(TINY, name="tiny", suites={"core": arms})
    for table in ("update_support", "rotation", "update_norm", "evaluation", "training"):
        for old, new in renamed.items():
            for seed in study.seeds:
                rows = lake.read_partition(store, table, recipe=f"tiny.{old}", seed=seed)
                if rows is not None:
                    lake.write(store, table, rows, recipe=f"tiny.{new}", seed=seed)
    lines = summarise_study(store, study, ["core"]).splitlines()
    (heading,) = [line for line in lines if line.startswith("mean ")]
    assert heading.split()[-4:] == ["distill", "grpo", "mine", "control"]


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (lambda recipe, seed: seed < 2, "takes 3 seeds and these arms have 2 seeds"),
        (lambda recipe, seed: seed < 1, "takes 3 seeds and these arms have 1 seed;"),
        (lambda recipe, seed: recipe == "tiny.sft-matched", "takes two measured arms, and there is 1"),
    ],
)
def test_a_study_that_decides_nothing_says_why(fill, keep, words, columns):
    store = fill(keep=keep)
    told = summarise_study(store, TINY, ["core"])
    assert words in " ".join(told.split()) and " hold" not in told.splitlines()[0]
    assert len(told.splitlines()) <= LINES


def test_a_suite_is_summed_up_by_itself(fill, columns):
    store = fill(more=("opd-pg",))
    lines = summarise_study(store, TINY, ["objectives"]).splitlines()
    rows = lake.scan("verdicts", store.uri).filter(pl.col("suite") == "objectives").collect()
    assert lines[0].startswith(f"tiny, objectives: {len(rows)} statement")
    (heading,) = [line for line in lines if line.startswith("mean ")]
    assert heading.split()[-1] == "opd-pg" and "SFT" not in heading


def test_a_page_in_another_store_is_opened_by_a_command():
    lines = describe_page(Store("memory://there"), "reports/tiny/index.html", "tiny")
    assert lines == [
        "page: memory://there/reports/tiny/index.html",
        "a copy to open: opd report tiny --save tiny.html",
    ]


def test_the_full_list_has_every_statement_with_its_units(fill, opd, columns):
    rows = comparing.decide_claims(fill(), TINY)
    code, out, err = opd("study", "verdicts", "tiny")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= columns
    told = " ".join(out.split())
    for claim in rows["claim"]:
        assert claim in told
    blocks = out.split("\n\n")
    (accuracy,) = [block for block in blocks if "OPD differs from RLVR: final accuracy" in " ".join(block.split())]
    assert " points over 3 seeds" in " ".join(accuracy.split())
    statuses = [block.split()[0] for block in blocks[1:] if block.strip()]
    assert statuses == sorted(statuses, key=("fails", "undecided", "holds").index)


def test_the_full_list_is_narrowed_by_status_and_suite_and_is_csv(fill, opd):
    rows = comparing.decide_claims(fill(more=("opd-pg",)), TINY)
    code, out, _ = opd("study", "verdicts", "tiny", "--status", "undecided,fails", "--csv")
    assert code == 0
    read = list(csv.DictReader(io.StringIO(out)))
    wanted = rows.filter(pl.col("status") != "holds")
    assert [row["claim"] for row in read] == wanted["claim"].to_list() and list(read[0]) == rows.columns
    of_suite = opd("study", "verdicts", "tiny", "--suite", "objectives")[1]
    assert "tiny, objectives: " in of_suite and "tiny, core: " not in of_suite


def test_a_study_without_verdicts_is_one_line(refused, here):
    (here / ".opd/store").mkdir(parents=True)
    assert "holds no verdicts of study tiny: run `opd study run tiny`" in refused("study", "verdicts", "tiny")
