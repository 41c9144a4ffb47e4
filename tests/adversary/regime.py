"""The size from which the certified route is taken, lowered for a regime of cases."""

from collections.abc import Iterator
from contextlib import contextmanager

from opd_ops.geometry import base, update

LOWERED = 64


@contextmanager
def lowered(regime: str) -> Iterator[None]:
    """Within the block, the regime `lowered` takes the certified route past LOWERED; the others are as they are."""
    before = base.EXACT, update.EXACT
    if regime == "lowered":
        base.EXACT = update.EXACT = LOWERED
    try:
        yield
    finally:
        base.EXACT, update.EXACT = before
