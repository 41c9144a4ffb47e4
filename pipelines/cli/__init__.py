"""The command line `opd`: run studies, measure checkpoints from elsewhere, print tables and reports.

Each command has its own file; `options` and `request` hold what commands share.

Exit codes: 0 done · 1 a run failed · 2 bad input, explained in one line before any work · 3 a weight is NaN or
infinite, everything else is measured · 4 the monitored run left its band · 5 the verified store differs from what was
written · 130 interrupted; the same command continues.
"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines import refusal
from pipelines.store.names import escape_text

if TYPE_CHECKING:
    import argparse

    from pipelines.cli.options import Parser

EXIT_CODES = (__doc__ or "")[(__doc__ or "").index("Exit codes") :]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args: argparse.Namespace | None = None
    try:
        from pipelines.runs.cluster import attach, free_memory

        free_memory.require_address_space(free_memory.LIBRARIES)
        args = build_parser().parse_args(arguments)
        os.environ.update(attach.THREADS)  # as in workers: the number of BLAS threads changes rounding
        code = args.command(args)
        sys.stdout.flush()  # a closed pipe must fail here, not when the interpreter ends
        return code
    except KeyboardInterrupt:
        print("interrupted: earlier results are untouched, the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `opd tables | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:  # a Polars panic does not derive from Exception
        if (line := refusal.line(error)) is None:
            raise
        return _describe_refusal(_find_damaged_table(args, error) or line, refusal.code(error))


def _describe_refusal(line: str, code: int = 2) -> int:
    print(f"error: {escape_text(line)}", file=sys.stderr)
    return code


def _find_damaged_table(args: "argparse.Namespace | None", error: BaseException) -> str:
    """Name the table that cannot be read, if the error came from reading one."""
    if not refusal.of_tables(error):
        return ""
    from pipelines.lake.lake import find_damaged
    from pipelines.store.objects import Store, default_uri, normalise

    return find_damaged(Store(normalise(getattr(args, "out", None) or default_uri())))


def build_parser() -> "Parser":
    """Build the parser of all commands."""
    from pipelines.cli import (
        export,
        gc,
        measure,
        monitor,
        plan,
        regime,
        report,
        rm,
        study,
        tables,
        transfer,
        ui,
        verify,
        watch,
        weights,
    )
    from pipelines.cli.options import Parser, Version, add_commands

    top = Parser(
        prog="opd",
        description="Where in parameter space does post-training go? Train SFT, OPD and RLVR runs, or take checkpoints "
        "from elsewhere, and measure how their weights moved.",
        epilog="The object store is OPD_STORE (a file:// or s3:// URI), or .opd/store here. Studies and tasks of your "
        f"own are in OPD_STUDIES and OPD_TASKS, as ./FILE.py or package.module:NAME, with commas. {EXIT_CODES}",
    )
    top.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = add_commands(top)
    for room in (
        study,
        measure,
        plan,
        tables,
        regime,
        monitor,
        watch,
        transfer,
        report,
        ui,
        weights,
        verify,
        gc,
        rm,
        export,
    ):
        room.register(commands)
    return top
