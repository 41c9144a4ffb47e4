"""`opd ui`: serve Dagster's UI over the store, and the reports."""

import argparse
import os
import sys

from pipelines.cli.options import Commands


def register(commands: Commands) -> None:
    top = commands.add_parser("ui", help="open Dagster's UI over the store, in which all of this can be run and seen")
    top.description = (
        "Serve Dagster's UI and the reports on loopback until Ctrl-C. Complete runs that the store holds and this "
        "Dagster never saw are shown first. Its record of runs is DAGSTER_HOME, or .opd/dagster here."
    )
    top.add_argument("--port", type=int, metavar="N", help="of the UI (default: PORT, or 3000, or any that is free)")
    top.set_defaults(command=serve_ui)


def serve_ui(args: argparse.Namespace) -> int:
    """Replace this process by the one that serves the UI (`assets.ui`); its exit code is that of the server."""
    if args.port is not None:
        if not 0 < args.port < 65536:
            raise ValueError(f"--port {args.port} is no port; give one from 1 to 65535")
        os.environ["PORT"] = str(args.port)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "assets.ui"])
