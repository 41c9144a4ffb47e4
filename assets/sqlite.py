"""Keep SQLite databases open, so that a run's events do not each wait for the disk.

Dagster opens and closes a connection for each of a run's 200 transactions, at two databases with write-ahead logs
(WAL). By default SQLite flushes every commit, and the whole log when the last connection closes. Here commits are not
flushed (PRAGMA synchronous=NORMAL), and one more connection stays open. A killed process loses nothing; a power cut may
lose the last events, never the database, and the store has all results.
"""

import sqlite3
from collections import OrderedDict
from typing import Any

from sqlalchemy import event
from sqlalchemy.pool import Pool

MOST = 8  # databases: the two of all runs, and those of the latest ones

_open: "OrderedDict[str, sqlite3.Connection]" = OrderedDict()  # by path, the last used at the end


def keep_open() -> None:
    """Keep open the SQLite databases that SQLAlchemy connects to in this process from now on."""
    if not event.contains(Pool, "connect", _on_connect):
        event.listen(Pool, "connect", _on_connect)


def release() -> None:
    """Close the databases that are kept open, and keep none open from now on."""
    if event.contains(Pool, "connect", _on_connect):
        event.remove(Pool, "connect", _on_connect)
    while _open:
        _open.popitem()[1].close()


def _on_connect(connection: Any, record: Any) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    connection.execute("PRAGMA synchronous=NORMAL")
    path = next(row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main")
    if path in _open:
        _open.move_to_end(path)
    elif connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        _open[path] = sqlite3.connect(path, check_same_thread=False)
        _open[path].execute("PRAGMA schema_version").fetchone()  # a connection counts once it has read
        if len(_open) > MOST:
            _open.popitem(last=False)[1].close()
