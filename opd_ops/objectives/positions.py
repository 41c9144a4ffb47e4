"""Means over a step's response tokens, as a whole and by position in the response.

Positions are binned at powers of two past the first 16, so that a step of any length has a few dozen rows.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

SINGLE = 16  # positions with a bin of their own


class Positions:
    """Sums of per-token quantities [B, R] under the mask, by position, in float64."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.tokens = torch.zeros(width, dtype=torch.float64)
        self.sums: dict[str, Tensor] = {}

    def add(self, mask: Tensor, **values: Tensor | None) -> None:
        """Add a micro-batch; a quantity that is None is not measured."""
        self.tokens += mask.sum(0).double().cpu()
        for name, value in values.items():
            if value is not None:
                total = self.sums.setdefault(name, torch.zeros(self.width, dtype=torch.float64))
                total += (value.detach() * mask).double().sum(0).cpu()

    def measurements(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens and sums by position, for `merge`."""
        return self.tokens, self.sums

    def merge(self, measurements: tuple[Tensor, dict[str, Tensor]]) -> None:
        """Add another process' `measurements` of the same batch."""
        tokens, sums = measurements
        self.tokens += tokens
        for name, theirs in sums.items():
            self.sums[name] = self.sums[name] + theirs if name in self.sums else theirs

    def means(self) -> dict[str, float]:
        """Mean of every quantity over all tokens."""
        count = max(1.0, float(self.tokens.sum()))
        return {name: float(total.sum()) / count for name, total in self.sums.items()}

    def rows(self) -> list[dict[str, Any]]:
        """One row per bin that has tokens: position (first of the bin), position_end, tokens, and the means."""
        rows = []
        for begin, end in bins(self.width):
            if count := float(self.tokens[begin:end].sum()):
                means = {name: float(total[begin:end].sum()) / count for name, total in self.sums.items()}
                rows.append({"position": begin, "position_end": end, "tokens": int(count)} | means)
        return rows


def bins(width: int) -> list[tuple[int, int]]:
    """[begin, end) of the bins of `width` positions: one each up to 16, then up to 32, 64, 128 and so on."""
    edges = list(range(min(width, SINGLE) + 1))
    while edges[-1] < width:
        edges.append(min(2 * edges[-1], width))
    return list(pairwise(edges))
