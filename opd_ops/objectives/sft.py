"""SFT: per token -log s(y | prefix), the cross-entropy of a demonstration's token y under the student s.

Averaged over the data its gradient is that of the forward KL from the data distribution to the student, on the data's
own prefixes. Normalisation: `objective.weights`, over all demonstration tokens of the step.
Not measured: anything on the student's own prefixes.
"""

from torch import Tensor

from opd_ops.objectives.loss import Loss, StepInputs
from opd_ops.objectives.mismatch import Mismatch
from opd_ops.objectives.objective import entropy, log_softmax, select, weights
from opd_ops.objectives.positions import Positions
from opd_ops.recipe.sft import Sft


def per_token(log_s: Tensor, targets: Tensor) -> Tensor:
    """-log s(target) in nats, [B, R] fp32, from log-probabilities [B, R, V] fp32 and targets [B, R] int64."""
    return -select(log_s, targets)


class SftLoss(Loss):
    """SFT on a step's demonstrations."""

    name = "sft"

    def __init__(self, spec: Sft, step: StepInputs, positions: Positions | None, mismatch: Mismatch | None) -> None:
        super().__init__(spec, step, positions, mismatch)
        self.weight = weights(self.batch.mask, "token", step.recipe.rollout.max_new_tokens)

    def loss(self, logits: Tensor, begin: int, end: int) -> Tensor:
        part = self.batch.rows(begin, end)
        log_s = log_softmax(logits)
        if self.positions is not None:
            self.positions.add(part.mask, entropy=entropy(log_s))
        return (per_token(log_s, part.targets) * self.weight[begin:end]).sum()
