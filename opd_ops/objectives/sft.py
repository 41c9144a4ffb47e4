"""SFT: per token -log s(y | prefix), the cross-entropy of a demonstration's token y under the student s.

Averaged over the data its gradient is that of the forward KL from the data distribution to the student, on the data's
own prefixes. Normalisation: `objective.weights`, over all demonstration tokens of the step.
Not measured: anything on the student's own prefixes.
"""

from torch import Tensor

from opd_ops.objectives.objective import token_logprobs


def per_token(logits: Tensor, targets: Tensor) -> Tensor:
    """-log s(target) in nats, [B, R] fp32, from logits [B, R, V] of any dtype and targets [B, R] int64."""
    return -token_logprobs(logits, targets)
