"""`make ui`: Dagster's UI on loopback over the same store, the reports beside it, and one Ray that its runs share."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from assets import failures
from assets.instance import limit_pools, local_instance
from assets.launch import shared
from assets.metadata import PAGES, PAGES_PORT
from assets.pages import served
from pipelines.store.objects import Store, default_uri


def main() -> int:
    try:
        with local_instance() as instance:
            limit_pools(instance)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.environ["OPD_STORE"] = default_uri()
    port = os.environ.get("PORT") or free_port(3000)
    workspace = Path(__file__).resolve().parents[1] / "workspace.yaml"
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port)]
    with served(Store(os.environ["OPD_STORE"]), free_port(PAGES_PORT)) as pages, shared() as ray:
        os.environ["RAY_ADDRESS"], os.environ[PAGES] = ray, pages
        print(f"http://127.0.0.1:{port}   object store {os.environ['OPD_STORE']}   Ctrl-C ends it", flush=True)
        with subprocess.Popen(command, start_new_session=True) as server:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: os.killpg(server.pid, signal.SIGINT))
            server.wait()
    return 0


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
