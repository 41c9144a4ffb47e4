"""Student top-k: exact reverse KL on the student's K likeliest tokens S, a score-function term for a sample outside.

    sum_{v in S} s(v) sg[r(v)]  +  1[y not in S] sg[r(y)] log s(y),    r = log s - log T, sg without gradient

Over y ~ s the expected gradient is sum_v r(v) grad s(v), exactly that of KL(s || T) for every K (K = 0 would be
`policy_gradient`, K = V the full sum), and exactly zero at s = T. The variance is the tail's alone. The value is a
surrogate; read `Signal.kl`. What the teacher must give are the log-probabilities of K tokens that the student names.
Not measured: how today's token changes later states.
"""

from torch import Tensor


def candidates(log_s: Tensor, k: int) -> Tensor:
    """Ids [B, R, min(k, V)] int64 of the student's likeliest tokens, from log-probabilities or logits [B, R, V]."""
    return log_s.detach().topk(min(k, log_s.shape[-1]), dim=-1).indices


def per_token(log_s: Tensor, ids: Tensor, log_t_ids: Tensor, targets: Tensor, log_t_y: Tensor) -> Tensor:
    """The surrogate loss [B, R].

    log_s [B, R, V] with gradient, ids [B, R, K] distinct, log_t_ids [B, R, K] = log T(ids), targets y [B, R],
    log_t_y [B, R] = log T(y).
    """
    log_s_ids = log_s.gather(-1, ids)
    log_s_y = log_s.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    exact = (log_s_ids.exp() * (log_s_ids - log_t_ids).detach()).sum(-1)
    outside = (ids != targets.unsqueeze(-1)).all(-1)
    return exact + outside * (log_s_y - log_t_y).detach() * log_s_y
