"""Inverse-CDF draws from softmax(logits / T).

    p = softmax(logits / T), in float64;    v = the first token with  sum_{w <= v} p_w > u sum_w p_w

T = 0 takes the first largest logit, with its log-probability at T = 1. Nothing is cut from the tail.
"""

import torch
from torch import Tensor


def draw(logits: Tensor, u: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    """Tokens [B] (int64) and their log-probabilities [B] (fp32, rounded from float64).

    logits: [B, V], any float dtype. u: [B] float64 in [0, 1); not needed at temperature 0. A token with p = 0 is never
    drawn; logits that are NaN or +inf give a log-probability of NaN.
    """
    if temperature == 0:
        token = logits.argmax(-1)
        largest = logits.gather(1, token[:, None])[:, 0]
        return token, largest.float() - logits.float().logsumexp(-1)
    assert u is not None
    p = torch.softmax(logits if temperature == 1 else logits.double() / temperature, -1, dtype=torch.float64)
    cumulative = p.cumsum(-1)
    token = torch.searchsorted(cumulative, (u * cumulative[:, -1])[:, None], right=True)
    token.clamp_(max=logits.shape[1] - 1)  # reached with NaN only
    return token[:, 0], p.gather(1, token)[:, 0].log().float()
