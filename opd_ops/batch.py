"""The sequences of one optimizer step.

Shapes: B sequences, P prompt positions, R response positions. Token t of a response is predicted by the position before
it, so logits [B, R, V] that predict `targets` start at the last prompt position.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Record = TypeVar("Record", bound=Any)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences of one optimizer step: left-padded prompts, right-padded responses.

    ids, attention, positions: [B, P + R] int64. targets, mask: [B, R]; mask is 1 on response tokens, EOS included, and
    0 on padding and on responses left out. rewards, groups: [B], for RLVR. behaviour: [B, R] fp32, log-probabilities
    of the targets under the policy that drew them, at the sampling temperature; 0 where the mask is.
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
        return map_tensors(self, lambda x: x[begin:end])

    def to(self, device: torch.device) -> "Batch":
        return map_tensors(self, lambda x: x.to(device))


def map_tensors(record: Record, change: Callable[[Tensor], Tensor]) -> Record:
    """A dataclass with `change` applied to its tensors."""
    tensors = {f.name: getattr(record, f.name) for f in fields(record)}
    return replace(record, **{name: change(x) for name, x in tensors.items() if isinstance(x, Tensor)})
