"""Three ways to ask three questions, of a store with planted values: they agree, and with the closed forms.

The pages' snippets are taken from the pages and run, the others are the files that the notebook shows.
"""

import re
import runpy
from itertools import product
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipelines import lake
from pipelines.lake import questions
from pipelines.store.objects import Store

FOLDER = Path(questions.__file__).parent
README = FOLDER.parents[2] / "README.md"
NAMES = ("unchanged", "locking", "rotating")
ARMS, SEEDS, STEPS = ("tiny.opd", "tiny.sft", "external.mine"), (0, 1), (2, 5, 10)
ROLES = {"q": 100, "gate": 300}  # weights
ANSWERS = {
    # By hand from `planted`: of 100 and 300 weights, shares u and u / 2, so (100 u + 150 u) / 400, u by arm and seed.
    "unchanged": [
        ("tiny.sft", 2, 0.625 * 0.15, 0.0),
        ("tiny.opd", 2, 0.625 * 0.55, 0.0),
        ("external.mine", 1, 0.625 * 0.9, None),
    ],
    "locking": [
        ("external.mine", 2, None, 0.3, None, 0.125), ("external.mine", 5, None, 0.6, None, 0.125),
        ("tiny.opd", 2, 0.6, 0.3, 0.25, 0.125), ("tiny.opd", 5, 0.9, 0.6, 0.55, 0.125),
        ("tiny.sft", 2, 0.4, 0.1, 0.25, 0.125), ("tiny.sft", 5, 0.7, 0.4, 0.55, 0.125),
    ],
    "rotating": [
        ("external.mine", 0, "gate", 1.0, 1e-3, 1), ("external.mine", 0, "q", None, 2e-3, 1),
        ("tiny.opd", 0, "gate", 1.5, 1e-3, 2), ("tiny.opd", 0, "q", 0.75, 2e-3, 2),
        ("tiny.sft", 0, "gate", 15.0, 1e-3, 2), ("tiny.sft", 0, "q", 7.5, 2e-3, 2),
    ],
}  # fmt: skip


def planted(store):
    """Rows that count, and around them rows that must not: other steps, sides, cuts, views, scopes and nulls."""
    for arm, seed in product(ARMS, SEEDS):
        mine = arm == "external.mine"
        if mine and seed:
            continue
        tables = {"update_support": [], "locking": [], "nulls": [], "rotation": []}
        for step, role, view in product(STEPS, ROLES, ("bf16",) if mine else ("bf16", "master")):
            keys = {"study": "tiny", "recipe": arm, "seed": seed, "step": step, "layer": 0, "role": role, "view": view}
            share = (0.9 if mine else {"tiny.opd": 0.5, "tiny.sft": 0.1}[arm] + 0.1 * seed) if view == "bf16" else 0.0
            kept = (share if role == "q" else share / 2) if step == 10 else 1.0
            support = keys | {"numel": ROLES[role], "unchanged": kept, "scope": "projection"}
            tables["update_support"] += [support, support | {"numel": 10**6, "unchanged": 1.0, "scope": "other"}]
            for other, side in product((it for it in STEPS if it > step), ("input", "output")):
                start = {"tiny.opd": 0.6, "tiny.sft": 0.4}.get(arm, 0.6) - (0.3 if view == "bf16" else 0.0)
                found = start + (0.3 if step == 5 else 0.0) + (0.05 if role == "q" else -0.05)
                found += 0 if mine else 0.02 - 0.04 * seed
                found = found if (other, side) == (10, "input") else 0.99
                row = keys | {"step_other": other, "side": side, "similarity": found, "chance": 0.125}
                tables["locking"] += [row | {"k": 16}, row | {"k": 4, "similarity": 0.01}]
            for null in ("fixed_direction", "shuffled"):
                if mine or (null, view) == ("fixed_direction", "master"):
                    continue
                value = {2: 0.25, 5: 0.55, 10: 1.0}[step] + (0.1 if role == "q" else -0.1)
                value = value if null == "fixed_direction" else 0.9
                tables["nulls"].append(
                    keys | {"null": null, "final_step": 10, "similarity_k": 16, "similarity_input": value}
                )
            for side, k in product(("input", "output"), (16, 4)):
                degrees = (1 + seed) * (10.0 if arm == "tiny.sft" else 1.0) / (1 if role == "gate" else 2)
                counts = (step, side, view, k) == (10, "input", "bf16", 16)
                missing = mine and role == "q" and counts
                row = keys | {"side": side, "k": k, "error_deg": 1e-3 if role == "gate" else 2e-3}
                row |= {"mean_deg": None if missing else degrees if counts else 80.0}
                tables["rotation"].append(row | {"reason": "no gap" if missing else None})
        for table, rows in tables.items():
            lake.write(store, table, rows, recipe=arm, seed=seed)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(f"file://{tmp_path_factory.mktemp('asked')}/store")
    planted(made)
    return made


def by_polars(name, store):
    return runpy.run_path(str(FOLDER / f"{name}.py"))[name](store).collect()


def by_duckdb(name, store):
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed: make setup")
    with duckdb.connect(config={"threads": 1}) as session:
        session.execute("SET VARIABLE store = ?", [store])
        return session.sql((FOLDER / f"{name}.sql").read_text()).pl()


def agree(found, name):
    expected = pl.DataFrame(ANSWERS[name], schema=found.columns, orient="row")
    assert_frame_equal(found, expected, check_dtypes=False, abs_tol=1e-12)  # sums of a few values in any order


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ask", [by_polars, by_duckdb], ids=["polars", "duckdb"])
def test_the_plain_snippets_give_the_planted_answers(ask, name, store):
    agree(ask(name, store.path("")), name)


def test_the_plain_snippets_need_nothing_of_this_project():
    for name in NAMES:
        source = (FOLDER / f"{name}.py").read_text()
        assert re.findall(r"^\s*(?:import|from) .*", source, re.M) == ["\nimport polars as pl"]
        assert not re.search(r"pipelines|opd_ops", (FOLDER / f"{name}.sql").read_text())


def test_the_snippets_read_a_store_on_s3(s3):
    planted(s3)
    for name in NAMES:
        agree(by_polars(name, s3.uri), name)


def test_the_notebook_gives_the_planted_answers_and_shows_the_snippets(store, monkeypatch):
    pytest.importorskip("marimo", reason="marimo is not installed: make notebook, or the extra [notebook]")
    monkeypatch.setenv("OPD_STORE", store.path(""))
    notebook = runpy.run_path(str(FOLDER / "notebook.py"))
    outputs, defined = notebook["app"].run()
    for name in NAMES:
        agree(defined[name], name)
    page = "".join(getattr(output, "text", "") for output in outputs)
    for name, word in product(NAMES, ("py", "sql")):
        assert f"({name}.{word})" in page
    assert page.count("getvariable") >= 4, "the SQL itself"


def test_the_notebook_says_what_to_do_where_nothing_is_measured(tmp_path, monkeypatch):
    pytest.importorskip("marimo", reason="marimo is not installed: make notebook, or the extra [notebook]")
    monkeypatch.setenv("OPD_STORE", str(tmp_path))
    outputs, defined = runpy.run_path(str(FOLDER / "notebook.py"))["app"].run()
    assert all(defined[name].is_empty() for name in NAMES)
    assert any("make demo" in getattr(output, "text", "") for output in outputs)


def code_blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def test_the_page_of_the_tables_shows_the_sql_that_is_tested():
    (sql,) = code_blocks(FOLDER.parent / "README.md", "sql")
    assert sql == (FOLDER / "rotating.sql").read_text()


def test_what_the_readme_asks_through_the_door_runs(store, monkeypatch, capsys):
    monkeypatch.setenv("OPD_STORE", store.path(""))
    (code,) = [block for block in code_blocks(README, "python") if "import scan" in block]
    asked = {}
    exec(compile(code, "README.md", "exec"), asked)
    agree(asked["unchanged"], "unchanged")
    assert "tiny.opd" in capsys.readouterr().out
