"""OPD: L = (1/N) sum_{b,t} mask[b,t] sum_v p_s(v) [log p_s(v) - log p_T(v)], N = sum of the mask over the whole step.

KL(student || teacher), exact over the vocabulary, on the student's own rollouts; prefixes are fixed, so the term for
how today's token changes later states is left out, as in every token-level OPD. Both distributions are taken at the
loss temperature (logits / T). Source: arXiv 2606.07082, appendix D; the paper itself trains the sampled-token form,
whose expected gradient on fixed prefixes is the same.
"""

import torch
from torch import Tensor


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(student || teacher) per position in nats, [B, R] fp32, from two logits tensors [B, R, V]."""
    log_s = torch.log_softmax(student.float() / temperature, dim=-1)
    log_t = torch.log_softmax(teacher.float() / temperature, dim=-1)
    return (log_s.exp() * (log_s - log_t)).sum(-1)


def loss(student: Tensor, teacher: Tensor, mask: Tensor, denominator: float, temperature: float = 1.0) -> Tensor:
    """Share of the step's reverse KL in nats per token. The teacher's logits carry no gradient."""
    return (divergence(student, teacher.detach(), temperature) * mask).sum() / denominator
