"""The contract of an objective: a masked sum over response tokens, divided by one global denominator.

Shapes: B sequences, R response positions, V vocabulary. `logits[b, t]` predicts `targets[b, t]`. A step may be split
into micro-batches; each returns its share of the same quotient, so that their gradients add up to the whole step's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences of one optimizer step: left-padded prompts, right-padded responses.

    ids, attention, positions: [B, P + R] int64. targets, mask: [B, R]; mask is 1 on response tokens, EOS included.
    rewards and groups: [B], for RLVR.
    """

    ids: Tensor
    attention: Tensor
    positions: Tensor
    width: int  # R
    mask: Tensor
    rewards: Tensor | None = None
    groups: Tensor | None = None

    @property
    def targets(self) -> Tensor:
        return self.ids[:, -self.width :]

    def rows(self, begin: int, end: int) -> "Batch":
        """The micro-batch of sequences begin..end."""
        cut = lambda x: None if x is None else x[begin:end]  # noqa: E731
        return Batch(
            ids=self.ids[begin:end],
            attention=self.attention[begin:end],
            positions=self.positions[begin:end],
            width=self.width,
            mask=self.mask[begin:end],
            rewards=cut(self.rewards),
            groups=cut(self.groups),
        )


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """log p(target) per position, [B, R] fp32, from logits [B, R, V] of any dtype."""
    return torch.log_softmax(logits.float(), dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
