"""`opd ui`: Dagster's UI on loopback over the same store, with the reports and one Ray that its runs share."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import dagster as dg

from assets import failures, sqlite
from assets.arrivals import Arrivals
from assets.instance import limit_pools, local_instance
from assets.launch import share_ray
from assets.metadata import PAGES, PAGES_PORT
from assets.pages import serve_pages
from pipelines.store.objects import Store, default_uri

BEAT = 0.5  # seconds between two looks at the services
WORKSPACE = Path(__file__).resolve().parents[1] / "workspace.yaml"  # of a checkout; a wheel has none
GRACE = 60.0  # seconds for an interrupted service to end, with the runs that it waits for


def main() -> int:
    """Run until Ctrl-C or until a service ends; returns 0 or the exit code of that service. 2: bad settings."""
    try:
        port = require_port(os.environ["PORT"]) if os.environ.get("PORT") else free_port(3000)
        os.environ["OPD_STORE"] = default_uri()
        store = Store(os.environ["OPD_STORE"])
        with serve_pages(store, free_port(PAGES_PORT)) as pages:
            os.environ[PAGES] = pages
            with local_instance() as instance:
                limit_pools(instance)
                show_arrivals(instance, store)
            with share_ray() as ray:
                os.environ["RAY_ADDRESS"] = ray
                address = f"http://127.0.0.1:{port}"
                return run_services(services(port), address, f"{address}   object store {store.uri}   Ctrl-C ends it")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def show_arrivals(instance: dg.DagsterInstance, store: Store) -> None:
    """Report to Dagster what the store holds and it has not seen, and print a summary."""
    sqlite.keep_open()
    try:
        arrivals = Arrivals(instance, store)
        arrivals.report()
    finally:
        sqlite.release()
    for problem in arrivals.problems:
        print(problem, file=sys.stderr)
    if arrivals.said:
        print(arrivals.said, flush=True)


def services(port: int | str) -> dict[str, list[str]]:
    """The command lines of the services. Our webserver replaces Dagster's, which also answers other pages."""
    workspace = ["-w", str(WORKSPACE)] if WORKSPACE.exists() else ["-m", "assets.definitions"]
    return {
        "webserver": [sys.executable, "-P", "-m", "assets.webserver", *workspace, "-h", "127.0.0.1", "-p", str(port)],
        "daemon": [sys.executable, "-P", "-m", "dagster._daemon", "run", *workspace],
    }


def run_services(commands: dict[str, list[str]], address: str, line: str) -> int:
    """Run the services in their own process group, and print `line` once `address` answers; returns the exit code.

    0 if Ctrl-C, SIGTERM or a closed terminal ended them; else the code of the service that ended first, with 1 for its
    0.
    """
    is_up = False
    running: dict[str, subprocess.Popen[bytes]] = {}
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: signals.append(number))
    try:
        for name, command in commands.items():
            group = next(iter(running.values())).pid if running else 0
            running[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=group)
        while not signals and all(process.poll() is None for process in running.values()):
            if not is_up and (is_up := answers(address)):
                print(line, flush=True)
            time.sleep(BEAT)
        ended = [name for name, process in running.items() if process.poll() is not None]
    finally:
        if running:
            interrupt(next(iter(running.values())).pid)
        for process in running.values():
            end(process)
    if signals:
        return 0
    print(f"error: the {ended[0]} ended by itself; what it printed stands above", file=sys.stderr)
    code = running[ended[0]].returncode
    return code if code > 0 else 128 - code if code else 1


def answers(address: str) -> bool:
    """Whether a webserver answers there."""
    try:
        with urllib.request.urlopen(f"{address}/server_info", timeout=BEAT):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def interrupt(group: int) -> None:
    """Interrupt every process of a group, as Ctrl-C in a terminal does: services, code servers and runs."""
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


def require_port(text: str) -> int:
    """A free port. Errors: ValueError for an invalid or a taken one."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise ValueError(f"PORT={text} is no port; give one from 1 to 65535")
    if free_port(int(text)) != int(text):
        raise ValueError(f"port {text} is taken; give another: opd ui --port {free_port(0)}")
    return int(text)


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
    sys.exit(failures.run_command(main))
