"""One-line reasons for failures: of a step above its traceback, of a failed run, and of a program."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import dagster as dg

from assets.instance import explain_database_error
from assets.progress import Stopped
from pipelines import refusal


@contextmanager
def fail_in_one_line() -> Iterator[None]:
    """Turn an error into a Failure described by the error's message in one line, with its class if it is unforeseen.

    A foreseen error keeps only the Failure's traceback; another error stays as its cause.
    """
    try:
        yield
    except (dg.Failure, Stopped):
        raise
    except Exception as error:
        raise dg.Failure(
            description=describe_foreseen(error) or describe_unforeseen(error), allow_retries=False
        ) from error


def run_command(main: Callable[[], int]) -> int:
    """The exit code of `main`. A foreseen error is one line on stderr; a closed pipe is code 0."""
    try:
        code = main()
        sys.stdout.flush()  # a closed pipe must fail here, not when the interpreter ends
        return code
    except BrokenPipeError:  # `opd study run tiny | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if (line := describe_foreseen(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return refusal.code(error)


def describe_foreseen(error: BaseException) -> str | None:
    """The problem and its remedy in one line; None for an unforeseen error."""
    line = explain_database_error(error) or refusal.line(error)
    return None if line is None else " ".join(line.split())


def describe_unforeseen(error: BaseException) -> str:
    """Class and message in one line: the first line of text, since a traceback follows."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def reason(events: Iterable[dg.DagsterEvent]) -> str:
    """The reason of the first failed step, or of the failed run, in one line."""
    found = ""
    for event in events:
        if event.is_step_failure:
            failure = event.step_failure_data
            if failure.user_failure_data and failure.user_failure_data.description:
                return " ".join(failure.user_failure_data.description.split())
            error = failure.error
        elif event.event_type == dg.DagsterEventType.RUN_FAILURE:
            error = event.job_failure_data.error
            found = found or " ".join((event.message or "").split())
        else:
            continue
        while error and error.cause:
            error = error.cause
        if error or event.is_step_failure:
            return error.message.strip().splitlines()[0] if error else "failed"
    return found or "failed"
