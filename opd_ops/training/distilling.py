"""The OPD term of a step: the teacher is asked, tokens are selected, importance weights are taken."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from opd_ops.batch import Batch
from opd_ops.objectives import importance, mix, opd, selection
from opd_ops.objectives.objective import weights
from opd_ops.recipe import Recipe, opd_of
from opd_ops.recipe.objective import SAMPLED
from opd_ops.teacher.scores import Scorer, Scores
from opd_ops.training.drawing import Phase
from opd_ops.training.mismatch import Mismatch
from opd_ops.training.positions import Positions


class Distilling:
    """OPD bound to a step's batch. `behind`: the same responses behind the prompts that the teacher reads.

    spans: the micro-batches of this process. total: adds numbers up over all processes that have some.

    Errors: ValueError naming a response's token that student and teacher do not share.
    """

    name = "opd"

    def __init__(
        self,
        recipe: Recipe,
        batch: Batch,
        behind: Batch,
        teacher: Scorer,
        draws: Tensor,
        positions: Positions,
        mismatch: Mismatch,
        spans: list[tuple[int, int]],
        phase: Phase,
        total: Callable[[list[float]], list[float]] = lambda values: values,
    ) -> None:
        spec = opd_of(recipe.objective)
        assert spec is not None
        _require_shared(batch, teacher.vocabulary)
        self.spec, self.batch, self.behind, self.teacher = spec, batch, behind, teacher
        self.draws, self.positions, self.mismatch = draws, positions, mismatch
        self.correction = recipe.rollout.correction if spec.estimator in SAMPLED else None
        self.comparable = recipe.rollout.on_policy and recipe.rollout.temperature == spec.loss_temperature
        self.weight = weights(batch.mask, spec.normaliser, recipe.rollout.max_new_tokens)
        self.support, self.spans, self.phase, self.total = opd.support(spec), spans, phase, total
        self.known: dict[int, Scores] = {}
        self.ratios: list[tuple[Tensor, Tensor]] = []
        if self.support.kind != "candidates":
            with phase("teacher"):
                teacher.prefetch([behind.rows(begin, end) for begin, end in spans], self.support)

    def loss(self, logits: Tensor, begin: int, end: int) -> Tensor:
        part = self.batch.rows(begin, end)
        candidates = opd.candidates(self.spec, logits, self.teacher.vocabulary)
        scores = self._scores(begin, end, candidates)
        found = opd.signal(self.spec, logits, scores, part.targets, candidates, self.teacher.vocabulary)
        factor = self.weight[begin:end]
        if self.spec.selection:
            factor = factor * selection.factors(
                self.spec.selection,
                part.mask,
                found.gap,
                scores.entropy,
                found.student_entropy,
                self.draws[begin:end, : part.width],
            )
        if self.comparable:
            self.mismatch.add(found.chosen, part.behaviour, part.mask)
        if self.correction:
            assert part.behaviour is not None
            ratio = importance.weights(found.chosen, part.behaviour, self.correction.cap)
            self.ratios.append((ratio, part.mask))
            factor = factor * ratio
        self.positions.add(
            part.mask,
            kl=found.kl,
            entropy=found.student_entropy,
            teacher_entropy=scores.entropy,
            student_mass=found.student_mass,
            teacher_mass=found.teacher_mass,
            overlap=found.overlap,
        )
        return (found.per_token * factor).sum()

    def rms(self) -> float:
        """Root mean square of log s(y) - log T(y), with s as it was when it drew y, which `rms` mixing divides by."""
        assert self.batch.behaviour is not None
        for begin, end in self.spans:
            self.known[begin] = self._scores(begin, end, None)
        sampled = torch.cat([scores.sampled for scores in self.known.values()])
        begin, end = self.spans[0][0], self.spans[-1][1]
        mask = self.batch.mask[begin:end]
        mine, tokens = mix.rms(self.batch.behaviour[begin:end] - sampled, mask), float((mask > 0).sum())
        squares, count = self.total([mine * mine * tokens, tokens])
        return mine if count == tokens else math.sqrt(squares / count)

    def summary(self) -> dict[str, float | None]:
        if not self.ratios:
            return {}
        ratio, mask = (torch.cat([pair[i] for pair in self.ratios]) for i in range(2))
        assert self.correction is not None
        return {
            "ess": importance.effective(ratio, mask),
            "clipped": importance.cut(ratio, mask, self.correction.cap),
        }

    def measured(self) -> list[tuple[Tensor, Tensor]]:
        return [(ratio.cpu(), mask.cpu()) for ratio, mask in self.ratios]

    def merge(self, found: list[tuple[Tensor, Tensor]]) -> None:
        self.ratios += [(ratio.to(self.weight.device), mask.to(self.weight.device)) for ratio, mask in found]

    def _scores(self, begin: int, end: int, candidates: Tensor | None) -> Scores:
        if begin in self.known:
            return self.known.pop(begin)
        with self.phase("teacher"):
            return self.teacher.score(self.behind.rows(begin, end), self.support, candidates)


def _require_shared(batch: Batch, vocabulary: int) -> None:
    """A student's embedding may be padded past its tokens, and what is drawn there is read by no teacher."""
    foreign = batch.targets[batch.targets >= vocabulary]
    if len(foreign):
        raise ValueError(
            f"a response holds token {int(foreign[0])}, and student and teacher share the {vocabulary} tokens from 0 "
            "up: it pads the student's embedding and stands for nothing; lower rollout.temperature, or start from a "
            "model that gives such columns no probability"
        )
