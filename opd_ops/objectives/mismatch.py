"""How far apart rollout and trainer are on the trainer's own samples: one number per token, never only the mean.

With equal weights both log-probabilities are equal but for rounding; importance ratios rest on that.
"""

import math

import torch
from torch import Tensor

LOW, HIGH = math.log(0.9), math.log(1.1)


class Mismatch:
    """Differences of log p over a step's micro-batches."""

    def __init__(self) -> None:
        self.maximum, self.outside, self.tokens = 0.0, 0, 0

    @torch.no_grad()
    def add(self, trainer: Tensor, rollout: Tensor | None, mask: Tensor) -> None:
        """Log-probabilities of the same tokens, [B, R]; tokens without a rollout's are left out."""
        if rollout is None or not mask.any():
            return
        gap = (trainer - rollout)[mask > 0]
        self.maximum = max(self.maximum, float(gap.abs().max()))
        self.outside += int(((gap < LOW) | (gap > HIGH)).sum())
        self.tokens += len(gap)

    def measurements(self) -> tuple[float, int, int]:
        """For `merge`."""
        return self.maximum, self.outside, self.tokens

    def merge(self, measurements: tuple[float, int, int]) -> None:
        """Add another process' `measurements` of the same batch."""
        self.maximum = max(self.maximum, measurements[0])
        self.outside += measurements[1]
        self.tokens += measurements[2]

    def summary(self) -> dict[str, float | None]:
        if not self.tokens:
            return {}
        return {"mismatch_max": self.maximum, "mismatch_outside": self.outside / self.tokens}
