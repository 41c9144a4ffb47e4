"""Teacher top-k: a divergence of the K + 1 buckets {each of the teacher's K likeliest tokens} + {all others}.

    s' = (s(v_1), ..., s(v_K), 1 - sum_k s(v_k)), T' alike; loss D(s', T') for D reverse KL, forward KL or JSD

Both sides are distributions, so it is zero, with zero gradient, at s = T, and a lower bound of D(s, T) (data
processing), equal to it at K = V. Without the tail bucket mass would flow into the set (forward) or out of it (reverse)
even at s = T. Not measured: how the student spreads its mass inside the tail.

The student's tail is summed over its own tokens, exact however small. The teacher's is 1 minus its K probabilities, so
in fp32 a tail under 2^-24 is read as 2^-24.
"""

import math

import torch
from torch import Tensor

from opd_ops.objectives import divergence as divergences
from opd_ops.recipe.opd import Divergence

_SMALLEST_TAIL = 2.0**-24  # what fp32 resolves of 1 - mass


def per_token(
    log_s: Tensor, ids: Tensor, log_t_ids: Tensor, divergence: Divergence, beta: float | None = None
) -> Tensor:
    """[B, R] in nats. log_s [B, R, V] over the vocabulary, ids [B, R, K] int64, log_t_ids [B, R, K] = log T(ids)."""
    coarse_s, coarse_t = log_s.gather(-1, ids), log_t_ids.detach()
    if ids.shape[-1] < log_s.shape[-1]:
        tail_s = log_s.scatter(-1, ids, -math.inf).logsumexp(-1, keepdim=True)
        tail_t = log1mexp(coarse_t.logsumexp(-1, keepdim=True).clamp(max=-_SMALLEST_TAIL))
        coarse_s, coarse_t = torch.cat([coarse_s, tail_s], -1), torch.cat([coarse_t, tail_t], -1)
    return divergences.per_token(coarse_s, coarse_t, divergence, beta)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, to full relative precision on both sides of -ln 2."""
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))
