"""Errors a person can act on become one line in the run's log instead of a traceback through the framework."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg


@contextmanager
def explained() -> Iterator[None]:
    """Turn ValueError, FloatingPointError and OSError into a Failure whose description is the message."""
    try:
        yield
    except (ValueError, FloatingPointError, OSError) as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
