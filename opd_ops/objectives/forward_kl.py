"""Forward KL: KL(T || s) = sum_v T(v) [log T(v) - log s(v)], teacher T first, exact over the buckets it is given.

Gradient through s alone; on logits z it is s(v) - T(v), the cross-entropy's against the teacher's distribution. It
weighs by what the teacher would say, so it does not measure how unlikely the teacher finds what the student says where
T is small; nor, prefixes being fixed, how today's token changes later states.
Source: arXiv 2306.13649, section 2.
"""

from torch import Tensor


def per_token(log_s: Tensor, log_t: Tensor) -> Tensor:
    """KL(T || s) in nats, [B, R], from normalised finite log-probabilities [B, R, V] of one dtype, kept."""
    log_t = log_t.detach()
    return (log_t.exp() * (log_t - log_s)).sum(-1)
