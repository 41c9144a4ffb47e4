"""The contract of a teacher: log-probabilities of response positions, on a declared support.

A teacher reads the same responses as the student, behind its own prompts (a privileged one, maybe). Everything is at
the loss temperature, normalised over the vocabulary that student and teacher share, in fp32, without gradient, and 0
where the mask is 0, so that what comes from a cache equals what was computed bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from opd_ops.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Support:
    """Which tokens a teacher scores at each position, besides the target and its entropy, which it always gives.

    full: the vocabulary. top: its own `k` likeliest. candidates: `k` that it is given. sampled: none more.
    """

    kind: Literal["full", "top", "candidates", "sampled"]
    k: int = 0
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Scores:
    """sampled [B, R]: log T(target). entropy [B, R]: of T, in nats. full [B, R, V]; ids, top [B, R, k] int64, fp32."""

    sampled: Tensor
    entropy: Tensor
    full: Tensor | None = None
    ids: Tensor | None = None
    top: Tensor | None = None


class Scorer(Protocol):
    """A teacher, in this process or elsewhere."""

    digest: str  # of its weights and arithmetic
    vocabulary: int  # leading columns of the logits that student and teacher share

    def prefetch(self, parts: Sequence[Batch], support: Support) -> None:
        """A hint that `score` will be asked for these micro-batches, in order; elsewhere they can be computed ahead."""
        ...

    def sleep(self) -> None:
        """Give a device's memory back until the next score."""
        ...

    def score(self, part: Batch, support: Support, candidates: Tensor | None = None) -> Scores:
        """Scores of a micro-batch. candidates: [B, R, k] token ids, for that support."""
        ...
