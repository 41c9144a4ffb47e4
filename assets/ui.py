"""`make ui`: Dagster's UI on loopback over the same store, the reports beside it, and one Ray that its runs share."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from assets import failures
from assets.instance import limit_pools, local_instance
from assets.launch import shared
from assets.metadata import PAGES, PAGES_PORT
from assets.pages import served
from pipelines.store.objects import Store, default_uri

BEAT = 0.5  # seconds between two looks at the services
GRACE = 60.0  # seconds for an interrupted service to end, with the runs that it waits for


def main() -> int:
    """Run until Ctrl-C or until a service ends; the exit code. 1: a service ended by itself, 2: bad settings."""
    try:
        with local_instance() as instance:
            limit_pools(instance)
        os.environ["OPD_STORE"] = default_uri()
        port = os.environ.get("PORT") or free_port(3000)
        with served(Store(os.environ["OPD_STORE"]), free_port(PAGES_PORT)) as pages, shared() as ray:
            os.environ["RAY_ADDRESS"], os.environ[PAGES] = ray, pages
            print(f"http://127.0.0.1:{port}   object store {os.environ['OPD_STORE']}   Ctrl-C ends it", flush=True)
            return run_services(services(port))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def services(port: int | str) -> dict[str, list[str]]:
    """The command lines. The webserver is ours, since Dagster's own answers the requests of other pages, too."""
    workspace = ["-w", str(Path(__file__).resolve().parents[1] / "workspace.yaml")]
    return {
        "webserver": [sys.executable, "-m", "assets.webserver", *workspace, "-h", "127.0.0.1", "-p", str(port)],
        "daemon": [sys.executable, "-m", "dagster._daemon", "run", *workspace],
    }


def run_services(commands: dict[str, list[str]]) -> int:
    """Run the services in a process group of their own; the exit code.

    0: Ctrl-C, SIGTERM or a closed terminal ended them. 1: one of them ended by itself.
    """
    running: dict[str, subprocess.Popen[bytes]] = {}
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        for name, command in commands.items():
            group = next(iter(running.values())).pid if running else 0
            running[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=group)
        while not asked and all(process.poll() is None for process in running.values()):
            time.sleep(BEAT)
        ended = [name for name, process in running.items() if process.poll() is not None]
    finally:
        if running:
            interrupt(next(iter(running.values())).pid)
        for process in running.values():
            end(process)
    if asked:
        return 0
    print(f"error: the {ended[0]} ended by itself; what it printed stands above", file=sys.stderr)
    return 1


def interrupt(group: int) -> None:
    """What Ctrl-C in a terminal does to every process of a group: the services, their code servers and their runs."""
    try:
        os.killpg(group, signal.SIGINT)
    except ProcessLookupError:
        return


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for an interrupted service; kill it after GRACE seconds."""
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port(wanted: int) -> int:
    """`wanted` on loopback if it is free, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise OSError("no free port on 127.0.0.1")


if __name__ == "__main__":
    sys.exit(failures.ended(main))
