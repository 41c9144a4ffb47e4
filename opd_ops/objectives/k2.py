"""k2: per token 1/2 [log s(y) - log T(y)]^2, for the sampled token y.

Its gradient is the log ratio times grad log s(y), token by token that of `policy_gradient`: over y ~ s exactly that of
KL(s || T). The value is at least 0; its mean agrees with the KL to second order around s = T, and no further.
Not measured: how today's token changes later states.
Source: J. Schulman, "Approximating KL Divergence" (2020), for the value.
"""

from torch import Tensor


def per_token(log_s_y: Tensor, log_t_y: Tensor) -> Tensor:
    """[B, R] in nats squared from log s(y), with gradient, and log T(y), both [B, R] at the loss temperature."""
    return 0.5 * (log_s_y - log_t_y.detach()).square()
