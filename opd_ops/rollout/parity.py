"""How far an engine's log-probabilities are from the trainer's, over the same tokens and weights.

Per generated token, d = log p_engine - log p_trainer. A mean of d near zero says little, since kernels that disagree
err in both directions; so the size of d and its tail are reported. It does not show which side is right, and covers
probed tokens only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Logprobs = Sequence[Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Sizes of d in nats: its mean, 95th and 99th percentiles (linear between order statistics) and maximum.

    outside: share of tokens whose importance weight p_trainer / p_engine = exp(-d) is outside [0.9, 1.1].
    """

    tokens: int
    mean_abs: float
    p95: float
    p99: float
    maximum: float
    outside: float


def compare(engine: Logprobs, trainer: Logprobs) -> Parity:
    """Parity of two ragged lists, one row per response, one log-probability per token.

    Errors: ValueError, naming the place, on unequal lengths or values that are not finite; and when there is no token.
    """
    if len(engine) != len(trainer):
        raise ValueError(f"the engine scored {len(engine)} responses and the trainer {len(trainer)}")
    for row, (left, right) in enumerate(zip(engine, trainer, strict=True)):
        if len(left) != len(right):
            raise ValueError(f"response {row}: the engine scored {len(left)} tokens and the trainer {len(right)}")
        for side, values in (("engine", left), ("trainer", right)):
            if len(bad := np.flatnonzero(~np.isfinite(np.asarray(values, np.float64)))):
                place = f"response {row}, token {bad[0]}"
                raise ValueError(f"{place}: the {side}'s log-probability is {values[bad[0]]}, not finite")
    pairs = [np.subtract(left, right, dtype=np.float64) for left, right in zip(engine, trainer, strict=True)]
    d = np.concatenate([np.empty(0), *pairs])
    if not len(d):
        raise ValueError("there is no token to compare")
    size = np.abs(d)
    p95, p99 = np.quantile(size, [0.95, 0.99])
    return Parity(
        tokens=len(d),
        mean_abs=float(size.mean()),
        p95=float(p95),
        p99=float(p99),
        maximum=float(size.max()),
        outside=float(((-d < np.log(0.9)) | (-d > np.log(1.1))).mean()),
    )
