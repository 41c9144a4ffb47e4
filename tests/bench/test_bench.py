"""The command: rows printed beside their goals and kept in the lake."""

import pytest

from pipelines import lake
from pipelines.lake import TABLES
from pipelines.runs.cluster.attach import THREADS
from pipelines.store.objects import Store
from tests.bench import __main__ as bench
from tests.bench.ledger import describe_run, write_rows
from tests.bench.row import row


@pytest.fixture(autouse=True)
def small(monkeypatch, tiny, tmp_path):
    monkeypatch.setattr(bench, "QUICK", tiny)
    monkeypatch.setenv("OPD_STORE", str(tmp_path / "default"))
    for name, value in THREADS.items():
        monkeypatch.setenv(name, value)


def test_quick_figure_one_from_end_to_end(tmp_path, capsys):
    assert bench.main(["--quick", "--figure", "1", "--out", str(tmp_path / "store")]) == 0
    out = capsys.readouterr().out
    assert "figure 1, one wide matrix" in out and "figure 2" not in out
    assert ">= 60" in out and "<= 0.001  met" in out and "commit" in out and "torch" in out
    found = lake.scan("bench", str(tmp_path / "store")).collect()
    assert found.schema == TABLES["bench"].schema
    assert set(found["figure"]) == {1} and found["value"].null_count() == 0
    assert found["met"].null_count() == found.filter(goal="").height
    assert found["machine"].str.contains("1 thread$").all()


def test_a_quick_run_is_not_kept_unasked(tmp_path, capsys):
    assert bench.main(["--quick", "--figure", "1"]) == 0
    assert not (tmp_path / "default").exists()
    assert "kept in" not in capsys.readouterr().out


def test_bad_input_is_refused_before_any_work(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main(["--figure", "99"])
    assert "invalid choice: 99" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert bench.main(["--quick", "--out", str(tmp_path / "file" / "store")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_figure_replaces_itself_and_no_other(tmp_path):
    store, run = Store(f"file://{tmp_path}/store"), describe_run()
    other = run | {"machine": "another"}
    write_rows(store, [row(2, "a", "q", 1.0, "s"), row(2, "b", "q", None, note="why")], run)
    write_rows(store, [row(1, "a", "q", 1.0, "s", least=2)], run)
    write_rows(store, [row(2, "c", "q", 3.0, "s")], other)
    write_rows(store, [row(2, "a", "q", 2.0, "s")], run | {"time": "later"})
    found = lake.scan("bench", store.uri).collect()
    assert found.select("figure", "case", "value", "met", "machine").rows() == [
        (1, "a", 1.0, False, run["machine"]),
        (2, "a", 2.0, None, run["machine"]),
        (2, "c", 3.0, None, "another"),
    ]
    assert found["time"].to_list()[1] == "later"
