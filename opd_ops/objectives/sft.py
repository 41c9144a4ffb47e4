"""SFT: L = -(1/N) sum_{b,t} mask[b,t] log p_student(y[b,t] | prefix), N = sum of the mask over the whole step.

The gradient is that of the forward KL from the data distribution to the student, on the data's own prefixes.
Not measured here: anything on the student's own prefixes.
"""

from torch import Tensor

from opd_ops.objectives.objective import token_logprobs


def loss(logits: Tensor, targets: Tensor, mask: Tensor, denominator: float) -> Tensor:
    """Share of the step's cross-entropy in nats per token. logits [B, R, V], targets and mask [B, R]."""
    return -(token_logprobs(logits, targets) * mask).sum() / denominator
