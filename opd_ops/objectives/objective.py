"""The contract of an objective: a loss per response token, and the weights that turn it into the step's loss.

Shapes: B sequences, R response positions, V vocabulary. `logits[b, t]` predicts `targets[b, t]`. An estimator's
`per_token` gives [B, R] fp32 in nats; the step's loss is sum_{b,t} weight[b, t] per_token[b, t], where the weights hold
the mask and one global denominator of the whole step. A step split into micro-batches takes the rows of both, so the
parts' gradients add up to the whole step's, whatever the split and the padding.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from opd_ops.recipe.objective import Normaliser


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
        return self._each(lambda x: x[begin:end])

    def to(self, device: torch.device) -> "Batch":
        return self._each(lambda x: x.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(x) for name, x in tensors.items() if isinstance(x, Tensor)})


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(target) per position at a temperature, [B, R] fp32, from logits [B, R, V] of any dtype."""
    return torch.log_softmax(logits.float() / temperature, dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def weights(mask: Tensor, normaliser: Normaliser, max_new_tokens: int) -> Tensor:
    """Per-token weights [B, R] over the whole step; the mask is part of them.

    token: 1 / N, N tokens under the mask. sequence: 1 / (B n_b), the mean over sequences of per-token means. constant:
    1 / (B max_new_tokens). B counts the sequences with any token under the mask.
    """
    sequences = mask.any(1).sum().clamp(min=1)
    if normaliser == "token":
        return mask / mask.sum().clamp(min=1)
    if normaliser == "constant":
        return mask / (sequences * max_new_tokens)
    return mask / (sequences * mask.sum(1, keepdim=True).clamp(min=1))
