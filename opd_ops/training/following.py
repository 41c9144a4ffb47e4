"""A rank that follows: it holds its part of the student, and does with it what rank 0 says (`leading.py`)."""

from contextlib import nullcontext

from opd_ops.training import sharded, student
from opd_ops.training.asking import Abandoned
from opd_ops.training.leading import Step, asking, bind
from opd_ops.training.optimizer import Moments
from opd_ops.training.ranks import Ranks


class Following:
    """This rank's part of the student that rank 0 makes."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.recipe, self.seed, config = ranks.told()
        self.model = sharded.build(self.recipe, config, None, ranks)
        self.optimizer = sharded.ShardedMasters(self.model, None, self.recipe, ranks)

    def follow(self) -> None:
        """Until rank 0 says that it is the end. Errors: what fails here; torch.distributed's where a rank is gone."""
        while True:
            what, given = self.ranks.told()
            match what:
                case "step":
                    self._step(*given)
                case "weights":
                    self.optimizer.collected(self.optimizer.masters)
                case "served":
                    self.optimizer.collected(self.optimizer.served)
                case "moments":
                    self.optimizer.whole_moments()
                case "state":
                    self.optimizer.whole_state()
                case "restore":
                    self.optimizer.restore_whole(None, *given)
                case "adopt":
                    self.optimizer.adopt_whole(Moments(steps=given[0], tensors={}))
                case "scored":
                    student.scored(self.model, given[0].to(self.ranks.device), self.recipe.precision.compute)
                case "end":
                    return

    def _step(self, step: Step) -> None:
        """This rank's share of a step, which rank 0 then makes or drops."""
        compute, phase = self.recipe.precision.compute, lambda name: nullcontext()
        asked = asking(self.recipe, step, self.ranks, None)
        try:
            try:
                terms = bind(self.recipe, self.seed, step, self.ranks, asked, phase)
            except ValueError:  # rank 0 has the same one, and says so
                raise Abandoned from None
            losses = student.backward(self.model, self.optimizer, terms, compute, phase)
        except Abandoned:
            self.optimizer.discard()
            return
        self.ranks.gathered((losses, terms.measured()))
        self.optimizer.combine(terms.coefficients)
        self.optimizer.clip()
        rate = self.ranks.told()
        if rate is None:
            self.optimizer.discard()
        else:
            self.optimizer.step(rate)
