"""Tries one route after another; if all fail, returns the reason instead of raising.

One odd matrix must not end a measurement. If LAPACK fails, a value is not finite, or the code has a defect, the matrix
gets null rows with the reason, and a named problem. Errors of the machine (files, memory, devices, matrix products of
reduced precision) are raised, since another attempt may succeed.
"""

from collections.abc import Callable
from typing import TypeVar

import torch

from opd_ops.geometry.gemm import ReducedPrecision

Rows = TypeVar("Rows")

MACHINE = (OSError, MemoryError, ImportError, torch.OutOfMemoryError, ReducedPrecision)
MEMORY = ("allocat", "out of memory", "CUDA error", "not enough memory")  # in the messages of torch's RuntimeErrors


def try_routes(*routes: Callable[[], Rows]) -> tuple[Rows | None, str | None]:
    """(rows, None) of the first route that succeeds, or (None, reason) of the last. Errors: those of the machine."""
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
