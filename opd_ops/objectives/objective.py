"""The contract of an objective: a loss per response token, and the weights that turn it into the step's loss.

Shapes: B sequences, R response positions, V vocabulary. `logits[b, t]` predicts `targets[b, t]`. An estimator's
`per_token` gives [B, R] fp32 in nats; the step's loss is sum_{b,t} weight[b, t] per_token[b, t], where the weights hold
the mask and one global denominator of the whole step. A step split into micro-batches takes the rows of both, so the
parts' gradients add up to the whole step's, whatever the split and the padding.
"""

import torch
from torch import Tensor

from opd_ops.recipe.objective import Normaliser


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log p of every token at a temperature, [B, R, V] fp32, from logits [B, R, V] of any dtype."""
    scaled = logits if temperature == 1 else logits.float() / temperature
    return torch.log_softmax(scaled, dim=-1, dtype=torch.float32)


def select(log_p: Tensor, targets: Tensor) -> Tensor:
    """log p(target) per position, [B, R], from log-probabilities [B, R, V] and targets [B, R] int64."""
    return log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


@torch.no_grad()
def entropy(log_p: Tensor) -> Tensor:
    """In nats per position, [B, R] without gradient, from log-probabilities [B, R, V]."""
    return -log_p.exp().mul_(log_p).sum(-1)


def token_logprobs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(target) per position at a temperature, [B, R] fp32, from logits [B, R, V] of any dtype."""
    return select(log_softmax(logits, temperature), targets)


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
