"""Sampled-token OPD: per token -A log s(y), A = -(log s(y) - log T(y)) without gradient, for the sampled token y.

Over y ~ s its expected gradient is exactly that of KL(s || T): sum_v s(v) [log s(v) - log T(v)] grad log s(v). The log
ratio is an advantage only: back-propagated itself, its expected gradient is zero, since the teacher cancels. The value
is a surrogate and no divergence; read `Signal.kl`. Over y drawn by another policy it follows no divergence, unless
`importance` weighs it.
Not measured: how today's token changes later states (no discounted sum of later log ratios).
Source: arXiv 2606.07082, appendices D and G.
"""

from torch import Tensor


def per_token(log_s_y: Tensor, log_t_y: Tensor) -> Tensor:
    """The surrogate loss [B, R] from log s(y), with gradient, and log T(y), both [B, R] at the loss temperature."""
    advantage = -(log_s_y - log_t_y).detach()
    return -advantage * log_s_y
