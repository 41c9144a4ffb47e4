"""A data parallel rank past rank 0: it holds its shard of the student and executes rank 0's commands (`rank0`)."""

from contextlib import nullcontext

from opd_ops.training import sharded, student
from opd_ops.training.rank0 import Step, bind_terms, share_teacher
from opd_ops.training.ranks import Ranks
from opd_ops.training.shared_teacher import Abandoned


class WorkerRank:
    """This rank's shard of the student that rank 0 builds."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.recipe, self.seed, config = ranks.broadcast()
        self.model = sharded.build(self.recipe, config, None, ranks)
        self.optimizer = sharded.ShardedMasters(self.model, None, self.recipe, ranks)

    def run(self) -> None:
        """Until rank 0 sends `end`. Commands without a case are collectives of the optimizer.

        Errors: what fails here; torch.distributed's where a rank is gone.
        """
        while True:
            name, args = self.ranks.broadcast()
            match name:
                case "step":
                    self._step(*args)
                case "score":
                    student.score_batch(self.model, args[0].to(self.ranks.device), self.recipe.precision.compute)
                case "end":
                    return
                case _:
                    getattr(self.optimizer, name)(*args)

    def _step(self, step: Step) -> None:
        """This rank's share of a step, which rank 0 then makes or drops."""
        compute, phase = self.recipe.precision.compute, lambda name: nullcontext()
        teacher = share_teacher(self.recipe, step, self.ranks, None)
        try:
            try:
                terms = bind_terms(self.recipe, self.seed, step, self.ranks, teacher, phase)
            except ValueError:  # rank 0 raises the same one
                raise Abandoned from None
            losses = student.backward(self.model, self.optimizer, terms, compute, phase)
        except Abandoned:
            self.optimizer.discard()
            return
        self.ranks.gather((losses, terms.measurements()))
        self.optimizer.combine(terms.coefficients)
        self.optimizer.clip()
        rate = self.ranks.broadcast()
        if rate is None:
            self.optimizer.discard()
        else:
            self.optimizer.step(rate)
