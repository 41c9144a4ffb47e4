"""Generalised Jensen-Shannon: beta KL(T || M) + (1 - beta) KL(s || M), M = beta T + (1 - beta) s, 0 < beta < 1.

Gradient through s alone; on logits z it is (1 - beta) s(v) [log s(v) - log M(v) - KL(s || M)]. M carries none, which is
exact: what would come through log M is -sum_v grad M(v) = 0. Bounded by ln 2 at beta = 1/2. Divided by beta it tends to
KL(T || s) as beta -> 0, and divided by 1 - beta to KL(s || T) as beta -> 1: near the ends the loss itself vanishes, so
its size across values of beta is not comparable. Not measured: how today's token changes later states.
Source: arXiv 2306.13649 (GKD), section 2.
"""

import math

import torch
from torch import Tensor

from opd_ops.objectives import reverse_kl


def per_token(log_s: Tensor, log_t: Tensor, beta: float) -> Tensor:
    """The divergence in nats, [B, R], from normalised finite log-probabilities [B, R, V] of one dtype, kept."""
    log_t = log_t.detach()
    log_m = torch.logaddexp(log_t + math.log(beta), log_s.detach() + math.log1p(-beta))
    return beta * reverse_kl.per_token(log_t, log_m) + (1 - beta) * reverse_kl.per_token(log_s, log_m)
