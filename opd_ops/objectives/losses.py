"""The loss of every objective, by the objective's `kind`. A combination (`mix`) has those of its parts."""

from opd_ops.objectives.loss import Loss
from opd_ops.objectives.opd import DistillLoss
from opd_ops.objectives.rlvr import PolicyGradientLoss
from opd_ops.objectives.sft import SftLoss
from opd_ops.recipe import Objective

LOSSES: dict[str, type[Loss]] = {"sft": SftLoss, "opd": DistillLoss, "rlvr": PolicyGradientLoss}


def loss_of(objective: Objective) -> type[Loss]:
    """The loss that trains an objective which combines no others. Errors: ValueError for one without."""
    if objective.kind not in LOSSES:
        raise ValueError(f"the objective {objective.kind!r} has no loss: name one in opd_ops.objectives.losses.LOSSES")
    return LOSSES[objective.kind]
