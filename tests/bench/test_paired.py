"""Two commits measure the same checkpoints in turn; ratios are within a pair, and tables are compared."""

import shutil

import polars as pl
import pytest

from pipelines import lake
from pipelines.store.objects import Store
from tests.bench import paired
from tests.bench.environment import ROOT

NEEDS_GIT = pytest.mark.skipif(
    not (shutil.which("git") and (ROOT / ".git").exists()), reason="needs git and this repository's history"
)


def test_phases_are_taken_apart():
    assert paired.phases(10.0, {"measure": 7.0, "base": 2.0}) == {
        "whole": 10.0, "measuring": 7.0, "base": 2.0, "snapshots": 5.0, "outside": 3.0,
    }  # fmt: skip
    assert paired.phases(10.0, {})["outside"] == 10.0


def test_the_ratio_is_the_median_of_those_within_pairs():
    """The second pair ran at half the speed: medians of seconds would give 3, its ratio is 4 as that of the first."""
    pairs = [
        {
            side: paired.phases(seconds, {"measure": seconds / 2})
            for side, seconds in zip(paired.SIDES, pair, strict=True)
        }
        for pair in ((40.0, 10.0), (80.0, 20.0), (30.0, 15.0))
    ]
    lines = paired.shown(pairs).splitlines()
    whole = next(line for line in lines if line.startswith("whole")).split()
    assert whole == ["whole", "40", "15", "4.00", "4.00,", "4.00,", "2.00"]
    assert next(line for line in lines if line.startswith("base")).split() == ["base", "0", "0", "-"]


def test_timing_is_read_as_any_commit_writes_it(tmp_path):
    keys = {"study": "external", "recipe": "external.a", "seed": 0, "step": 3, "wall_s": 9.0}
    rows = [keys | {"phase": phase, "cpu_s": seconds} for phase, seconds in (("measure", 5.0), ("base", 1.0))]
    lake.write(Store(f"file://{tmp_path}"), "timing", rows, recipe="external.a", seed=0)
    assert paired.timing(tmp_path) == {"measure": 5.0, "base": 1.0}


def test_pairs_alternate_and_the_first_tables_are_compared(tmp_path, monkeypatch, capsys):
    order = []

    def measure(tree, paths, store):
        older = tree.name == "older"
        order.append("older" if older else "this")
        nss = 0.1 if older else 0.2
        row = {"matrix": "a", "step": 1, "view": "bf16", "nss": nss, "mirsky": 0.5, "error": 1e-3}
        row |= {"study": "external", "recipe": "external.paired", "seed": 0}
        lake.write(Store(f"file://{store}"), "spectral_drift", [row], recipe="external.paired", seed=0)
        return paired.phases(8.0 if older else 2.0, {"measure": 1.0})

    monkeypatch.setattr(paired, "measure", measure)
    monkeypatch.setattr(paired, "described", lambda tree: tree.name)
    asked = paired.parser().parse_args(["abc", "--pairs", "2", "--snapshots", "1", "--hidden", "8"])
    assert paired.run(tmp_path, tmp_path / "older", asked) == 0
    assert order == ["older", "this", "this", "older"]
    out = capsys.readouterr().out
    assert "pair 2 of 2: older over this 4.00" in out and "spectral_drift differ" in out
    assert not (tmp_path / "store-this-1").exists() and (tmp_path / "store-this-0").exists()


@NEEDS_GIT
def test_a_commit_measures_by_its_own_code(tmp_path, capsys):
    assert paired.main(["HEAD", "--pairs", "1", "--snapshots", "1", "--hidden", "16"]) == 0
    out = capsys.readouterr().out
    assert "1 checkpoints, rl" in out and "all values of both agree within their bounds" in out
    whole = next(line for line in out.splitlines() if line.startswith("whole"))
    assert all(float(number) > 0 for number in whole.split()[1:])
    assert "paired" not in paired.call(["git", "worktree", "list"], ROOT)


@NEEDS_GIT
def test_a_commit_that_is_none_is_refused(capsys):
    assert paired.main(["nosuchcommit"]) == 2
    assert "error: git worktree add --quiet: fatal: invalid reference: nosuchcommit" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_counts_are_whole_numbers(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        paired.main(["HEAD", "--pairs", text])
    assert f"{text!r} is not a whole number from 1 up" in capsys.readouterr().err


def test_code_of_another_checkout_is_refused(tmp_path):
    (tmp_path / "tree").mkdir()
    with pytest.raises(paired.Failed, match="the code that runs for"):
        paired.described(tmp_path / "tree")


def test_a_measurement_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").touch()
    (tmp_path / "pipelines" / "cli.py").write_text("raise SystemExit('error: no such checkpoint')")
    with pytest.raises(paired.Failed, match=r"pipelines\.cli measure: error: no such checkpoint$"):
        paired.measure(tmp_path, [tmp_path, tmp_path], tmp_path / "store")


def test_plain_parquet_of_another_schema_is_read(tmp_path):
    (tmp_path / "lake" / "timing" / "recipe=a").mkdir(parents=True)
    pl.DataFrame({"phase": ["measure"], "cpu_s": [2.0]}).write_parquet(tmp_path / "lake/timing/recipe=a/part-0.parquet")
    assert paired.timing(tmp_path) == {"measure": 2.0}
