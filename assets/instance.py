"""DAGSTER_HOME, where Dagster keeps its record of runs, and a Dagster instance for runs in this process."""

import os
import sqlite3
from importlib.resources import files
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from assets.partitions import POOL, WATCHED

DEFAULT = ".opd/dagster"
ANEW = (
    "the store has all results, so delete that folder or move it away (keep its dagster.yaml if it is your own): a new "
    "one is made"
)
ELSEWHERE = "set DAGSTER_HOME to another folder, since the store has all results"
REMEDIES = {  # by the words of SQLite
    "is locked": f"end the process that locks it, or {ELSEWHERE}",
    "is full": "make room there",
    "readonly": f"give the right to write it, or {ELSEWHERE}",
    "unable to open": f"give the right to write it, or {ELSEWHERE}",
}


def home() -> Path:
    """DAGSTER_HOME, or .opd/dagster under the working directory. It is created if absent, with our dagster.yaml if it
    has none.

    Errors: ValueError naming a folder that cannot be written.
    """
    folder = Path(os.environ.get("DAGSTER_HOME") or DEFAULT).expanduser().absolute()
    config = folder / "dagster.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not config.exists():
            config.write_text(files("assets").joinpath("dagster.yaml").read_text())
    except OSError as error:
        raise ValueError(
            f"DAGSTER_HOME {folder} cannot be written ({error.strerror}); set it to one that can"
        ) from None
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder


def local_instance() -> dg.DagsterInstance:
    """The instance at `home()`, which does not capture stdout: the launch writes there.

    Errors: ValueError naming a folder whose dagster.yaml or database cannot be read.
    """
    silent = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    folder = home()
    try:
        return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder), overrides={"compute_logs": silent}))
    except Exception as error:  # YAML and configuration errors alike
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        line = (
            explain_database_error(error)
            or f"DAGSTER_HOME {folder} cannot be opened ({reason}); repair its dagster.yaml"
        )
        raise ValueError(line) from error


def explain_database_error(error: BaseException | None) -> str | None:
    """One line with a remedy for an error caused by Dagster's database; None for another error."""
    from sqlalchemy.exc import DBAPIError

    while error is not None and not isinstance(error, DBAPIError):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    reason, folder = " ".join(str(error.orig).split()), os.environ.get("DAGSTER_HOME", DEFAULT)
    if not isinstance(error.orig, sqlite3.Error):
        return (
            f"the database that DAGSTER_HOME {folder} names in its dagster.yaml cannot be used ({reason}); start it, "
            "or mend its address there, and the same command goes on"
        )
    remedy = next((remedy for words, remedy in REMEDIES.items() if words in reason), ANEW)
    return (
        f"Dagster's record in DAGSTER_HOME {folder} cannot be used ({reason}); {remedy}, and the same command goes on"
    )


def limit_pools(instance: dg.DagsterInstance) -> None:
    """Give our pools the default limit of dagster.yaml, unless the UI has set one.

    Dagster's queue does so too, but only after it has read the limits: its first look could start too many runs.
    """
    for pool in (POOL, WATCHED):
        instance.event_log_storage.initialize_concurrency_limit_to_default(pool)
