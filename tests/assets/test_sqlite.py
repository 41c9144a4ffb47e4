"""SQLite databases that are kept open: what is written is there for others, also after a kill."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from assets import sqlite


def engine(path):
    """As Dagster has one: a connection for every transaction."""
    return sa.create_engine(f"sqlite:///{path}", poolclass=NullPool)


def write(path, row):
    with engine(path).begin() as connection:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS events (row INTEGER)"))
        connection.execute(sa.text(f"INSERT INTO events VALUES ({row})"))
        return connection.execute(sa.text("PRAGMA synchronous")).scalar()


def rows(path):
    with closing(sqlite3.connect(path)) as connection:
        return [row for (row,) in connection.execute("SELECT row FROM events ORDER BY row")]


@pytest.fixture
def database(tmp_path):
    """database(name): a database with a write-ahead log, which nobody has open."""

    def make(name="events.db"):
        path = tmp_path / name
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
        return path

    yield make
    sqlite.release()


def log_of(path):
    return Path(f"{path}-wal")


def test_a_commit_is_not_flushed_and_the_log_stays_until_release(database):
    path = database()
    assert write(path, 1) == 2 and not log_of(path).exists(), "by default the log ends with the last connection"
    sqlite.keep_open()
    assert write(path, 2) == write(path, 3) == 1
    assert log_of(path).stat().st_size > 0 and rows(path) == [1, 2, 3]
    sqlite.release()
    assert not log_of(path).exists() and rows(path) == [1, 2, 3]
    assert write(path, 4) == 2


def test_the_databases_of_earlier_runs_are_let_go(database):
    sqlite.keep_open()
    common, runs = database("index.db"), [database(f"{number}.db") for number in range(12)]
    for path in runs:
        write(path, 1)
        write(common, 1)
    assert len(sqlite._open) == sqlite.MOST
    assert [log_of(path).exists() for path in (*runs, common)] == [False] * 5 + [True] * 8


def test_a_database_without_such_a_log_is_left_alone(tmp_path):
    sqlite.keep_open()
    try:
        write(tmp_path / "plain.db", 1)
        assert not sqlite._open
    finally:
        sqlite.release()


def test_a_killed_process_loses_nothing_that_it_committed(database):
    path = database()
    script = (
        "import os, signal, sys; from assets import sqlite; from tests.assets.test_sqlite import write\n"
        "sqlite.keep_open()\n"
        "for row in range(50): write(sys.argv[1], row)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert log_of(path).exists() and rows(path) == list(range(50))
