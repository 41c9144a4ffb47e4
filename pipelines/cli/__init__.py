"""The command line `opd`: run studies, measure checkpoints from elsewhere, look at tables and reports.

One file a command, and `options` and `request` for what they share.

Exit codes: 0 done · 1 a run failed · 2 bad input, said in one line before any work · 3 a weight is NaN or infinite,
everything else is measured · 4 the monitored run left its band · 5 the verified store is not as it was written ·
130 interrupted, and the same command continues.
"""

import argparse
import os
import sys
from collections.abc import Sequence

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
    verify,
    watch,
    weights,
)
from pipelines.cli.options import Parser
from pipelines.runs.cluster.attach import THREADS
from pipelines.runs.cluster.deaths import Died
from pipelines.store.names import escaped
from pipelines.store.objects import Store, Unwritable, default_uri, normalise

EXIT_CODES = (__doc__ or "")[(__doc__ or "").index("Exit codes") :]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = parser().parse_args(arguments)
    os.environ.update(THREADS)  # as in workers: another number of BLAS threads rounds otherwise
    try:
        code = given.command(given)
        sys.stdout.flush()  # a closed pipe must fail here, not when the interpreter ends
        return code
    except ValueError as error:
        return _refused(str(error))
    except Died as error:
        return _refused(str(error), 1)
    except KeyboardInterrupt:
        print("interrupted: earlier results are untouched, the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `opd tables | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:  # a panic of Polars is no Exception
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, Unwritable):
            return _refused(said, 1)
        if _unreachable(error):
            return _refused(f"{said}; check OPD_STORE ({default_uri()}), its address and credentials")
        # Polars' scans read when somebody asks for rows.
        if type(error).__module__.startswith("polars") or type(error).__name__ == "PanicException":
            return _refused(_damaged(given) or f"the tables cannot be read ({said}); see `opd verify`")
        raise


def _refused(line: str, code: int = 2) -> int:
    print(f"error: {escaped(line)}", file=sys.stderr)
    return code


def _damaged(given: argparse.Namespace) -> str:
    """Which table cannot be read, where one cannot."""
    from pipelines.lake.lake import damaged

    return damaged(Store(normalise(getattr(given, "out", None) or default_uri())))


def _unreachable(error: BaseException) -> bool:
    """Whether an error comes from the file system or the object store, not from this program."""
    return isinstance(error, OSError) or type(error).__module__.startswith(("botocore", "aiobotocore"))


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="opd",
        description="Where in parameter space does post-training go? Train SFT, OPD and RLVR runs, or take checkpoints "
        "from elsewhere, and measure how their weights moved.",
        epilog=f"The object store is OPD_STORE (a file:// or s3:// URI), or .opd/store here. {EXIT_CODES}",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
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
        weights,
        verify,
        gc,
        rm,
        export,
    ):
        room.register(commands)
    return top
