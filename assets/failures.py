"""A step that fails says why in one line: on top of its traceback, and wherever a failed run is told of."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import dagster as dg

from assets.progress import Stopped

PLAIN = (ValueError, FloatingPointError, OSError)  # whose messages are written for a person who can act on them


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error into a Failure whose description is its message in one line, led by its kind where unforeseen.

    A foreseen error, or one of ours, leaves no traceback but that of the Failure; the others keep theirs as its cause.
    """
    try:
        yield
    except (dg.Failure, Stopped):
        raise
    except PLAIN as error:
        raise dg.Failure(description=" ".join(str(error).split()), allow_retries=False) from error
    except Exception as error:
        raise dg.Failure(description=unforeseen(error), allow_retries=False) from error


def unforeseen(error: Exception) -> str:
    """Kind and message in one line: of several the first that says something, as what follows is a traceback."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def reason(events: Iterable[dg.DagsterEvent]) -> str:
    """What the first failed step, or else the failed run, says, in one line."""
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
