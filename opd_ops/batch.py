"""The token sequences of one optimizer step, as input of student and teacher.

Shapes: B sequences, P prompt positions, R response positions. The position before token t predicts it, so the logits
[B, R, V] that predict `targets` start at the last prompt position.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences of one optimizer step: left-padded prompts, right-padded responses.

    ids, attention, positions: [B, P + R] int64. targets, mask: [B, R]; mask is 1 on response tokens, EOS included, and
    0 on padding and on excluded responses. rewards, groups: [B], for RLVR. behaviour: [B, R] fp32, log-probabilities
    of the targets under the policy that sampled them, at the sampling temperature; 0 where the mask is 0.
    """

    ids: Tensor
    attention: Tensor
    positions: Tensor
    width: int  # R
    mask: Tensor
    rewards: Tensor | None = None
    groups: Tensor | None = None
    behaviour: Tensor | None = None

    @property
    def targets(self) -> Tensor:
        return self.ids[:, -self.width :]

    def rows(self, begin: int, end: int) -> "Batch":
        """The micro-batch of sequences begin..end."""
        return self._each(lambda x: x[begin:end])

    def to(self, device: torch.device) -> "Batch":
        return self._each(lambda x: x.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(x) for name, x in tensors.items() if isinstance(x, Tensor)})
