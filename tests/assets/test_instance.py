"""DAGSTER_HOME: where it lies, what is put there, and that nothing is sent."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
import sqlalchemy.exc

from assets import instance as home_of


def test_a_home_is_made_with_our_configuration_unless_it_has_one(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "a" / "home"))
    assert home_of.home() == tmp_path / "a" / "home"
    config = tmp_path / "a" / "home" / "dagster.yaml"
    assert config.read_text() == Path(home_of.__file__).with_name("dagster.yaml").read_text()
    config.write_text("telemetry:\n  enabled: true\n")
    home_of.home()
    assert config.read_text() == "telemetry:\n  enabled: true\n"


def test_without_a_variable_home_lies_here_and_is_exported(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.chdir(tmp_path)
    assert home_of.home() == tmp_path / ".opd" / "dagster"
    assert os.environ["DAGSTER_HOME"] == str(tmp_path / ".opd" / "dagster")


def test_our_configuration_sends_nothing_and_is_one_dagster_accepts(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with home_of.local_instance() as made:
        assert made.telemetry_enabled is False
        assert made.root_directory == str(tmp_path)


@pytest.mark.parametrize("begin", [0, 4096], ids=["header", "pages"])
def test_a_damaged_record_names_its_folder_and_moving_it_away_is_the_remedy(begin, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with home_of.local_instance() as made:
        assert made.get_runs() == []
    database = home / "history/runs.db"
    data = database.read_bytes()
    database.write_bytes(data[:begin] + b"\xff" * (len(data) - begin))
    with pytest.raises(Exception) as caught, home_of.local_instance() as made:
        made.get_runs()
    told = str(caught.value) if isinstance(caught.value, ValueError) else home_of.unrecorded(caught.value)
    assert told is not None and "\n" not in told
    assert told.startswith(f"Dagster's record in DAGSTER_HOME {home} cannot be used (")
    assert "the store has all results, so delete that folder or move it away" in told
    shutil.move(home, tmp_path / "away")
    with home_of.local_instance() as made:
        assert made.get_runs() == []


def test_a_locked_record_is_told_with_what_ends_that_and_other_errors_are_none_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    file = tmp_path / "runs.db"
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    engine = sqlalchemy.create_engine(f"sqlite:///{file}", connect_args={"timeout": 0})
    with pytest.raises(RuntimeError) as caught:
        try:
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text("CREATE TABLE a (b)"))
        except sqlalchemy.exc.OperationalError as error:
            raise RuntimeError("what it led to") from error
    holder.close()
    assert home_of.unrecorded(caught.value) == (
        f"Dagster's record in DAGSTER_HOME {tmp_path} cannot be used (database is locked); end the process that locks "
        "it, or set DAGSTER_HOME to another folder, since the store has all results, and the same command goes on"
    )
    assert home_of.unrecorded(RuntimeError("no database")) is None
    assert home_of.unrecorded(sqlite3.OperationalError("of somebody else's database")) is None


def test_a_database_elsewhere_is_not_told_as_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    error = sqlalchemy.exc.OperationalError("SELECT 1", None, Exception("connection refused\nis the server running?"))
    told = home_of.unrecorded(error)
    assert told is not None and "\n" not in told and "delete" not in told
    assert "names in its dagster.yaml cannot be used (connection refused is the server running?); start it" in told
