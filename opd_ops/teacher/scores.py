"""The contract of a teacher: log-probabilities of response positions, on a declared support.

A teacher reads the same responses as the student, after its own prompts (maybe privileged ones). All scores are at the
loss temperature, normalised over the vocabulary that student and teacher share, in fp32, without gradient, and 0 where
the mask is 0, so that scores from a cache equal computed ones bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from opd_ops.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Support:
    """The tokens that a teacher scores at each position besides the target; it always returns its entropy, too.

    full: the vocabulary. top: its own `k` likeliest. candidates: `k` ids from the student. sampled: none.
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
        """A hint that `score` will be called for these micro-batches, in order; an actor can compute them ahead."""
        ...

    def sleep(self) -> None:
        """Free the device's memory until the next score."""
        ...

    def score(self, part: Batch, support: Support, candidates: Tensor | None = None) -> Scores:
        """Scores of a micro-batch. candidates: [B, R, k] token ids, for that support."""
        ...
