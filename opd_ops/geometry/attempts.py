"""Compute by one route or the next; what none computes becomes a reason, and ends nothing.

One odd matrix must not end a measurement: LAPACK that gives up, a division by zero, a row that is not finite, or a
defect of this project is the reason of that matrix' null rows, and a named problem. What is the machine's is raised
as before, since another try may succeed: files, memory, a device, products of reduced precision.
"""

from collections.abc import Callable
from typing import TypeVar

import torch

from opd_ops.geometry.gemm import ReducedPrecision

Rows = TypeVar("Rows")

MACHINE = (OSError, MemoryError, ImportError, torch.OutOfMemoryError, ReducedPrecision)
MEMORY = ("allocat", "out of memory", "CUDA error", "not enough memory")  # in what torch says as a RuntimeError


def try_routes(*routes: Callable[[], Rows]) -> tuple[Rows | None, str | None]:
    """(rows, None) of the first route that computes, or (None, reason) of the last. Errors: those of the machine."""
    reason = None
    for route in routes:
        try:
            return route(), None
        except Exception as error:
            if isinstance(error, MACHINE) or any(text in str(error) for text in MEMORY):
                raise
            line = (str(error).splitlines() or [""])[0]
            reason = f"not computable ({type(error).__name__.lstrip('_')}: {line})"
    return None, reason
