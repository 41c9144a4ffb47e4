"""Reverse KL: KL(s || T) = sum_v s(v) [log s(v) - log T(v)], student s first, exact over the buckets it is given.

Gradient through s alone; on logits z it is s(v) [log s(v) - log T(v) - KL]. It leaves alone what the student never
says (s(v) = 0), so it does not measure the teacher's modes that the student misses; nor, prefixes being fixed, how
today's token changes later states. Buckets are tokens, or the coarse ones of `teacher_top_k`.
Source: arXiv 2606.07082, appendix D.
"""

from torch import Tensor


def per_token(log_s: Tensor, log_t: Tensor) -> Tensor:
    """KL(s || T) in nats, [B, R], from normalised finite log-probabilities [B, R, V] of one dtype, kept."""
    return (log_s.exp() * (log_s - log_t.detach())).sum(-1)
