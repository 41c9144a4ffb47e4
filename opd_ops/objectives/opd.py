"""On-policy distillation as a recipe words it: the per-token loss, and the readings that say what it did.

Prefixes are the rollouts' and fixed. The loss temperature divides the student's logits here; the teacher's scores come
at it. Both distributions are over the vocabulary that the two share, so a student's padding columns are cut off before
the softmax. Normalisation: `objective.weights`; there is no factor of the squared temperature.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opd_ops.batch import Batch
from opd_ops.objectives import (
    divergence,
    importance,
    k2,
    policy_gradient,
    reverse_kl,
    selection,
    student_top_k,
    teacher_top_k,
)
from opd_ops.objectives.loss import Loss, StepInputs, root_mean_square
from opd_ops.objectives.mismatch import Mismatch
from opd_ops.objectives.objective import entropy, log_softmax, select, weights
from opd_ops.objectives.positions import Positions
from opd_ops.recipe.opd import SAMPLED, Opd
from opd_ops.teacher.scores import Scores, Support

_READ = 16  # size of the set whose masses and overlap are read where the estimator has none


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What one micro-batch says, [B, R] fp32 each; all but `per_token` without gradient.

    per_token: the loss. logprobs: log s(y) of the target. log_ratio: log s(y) - log T(y). kl: KL(s || T), exact where
    the whole vocabulary was scored, else the log ratio, its one-sample estimate. student_entropy: in nats.
    student_mass, teacher_mass: of s and T on the estimator's top-k set, or on the student's 16 likeliest tokens where
    the whole vocabulary was scored. overlap: share of the student's top-k that is in the teacher's. None: not known.
    """

    per_token: Tensor
    logprobs: Tensor
    log_ratio: Tensor
    kl: Tensor
    student_entropy: Tensor
    student_mass: Tensor | None = None
    teacher_mass: Tensor | None = None
    overlap: Tensor | None = None


def support(spec: Opd) -> Support:
    """What the teacher has to score for an estimator."""
    temperature = spec.loss_temperature
    if spec.estimator == "full":
        return Support(kind="full", temperature=temperature)
    if spec.k is None:
        return Support(kind="sampled", temperature=temperature)
    kind = "top" if spec.estimator == "teacher-top-k" else "candidates"
    return Support(kind=kind, k=spec.k, temperature=temperature)


def candidates(spec: Opd, student_logits: Tensor, vocabulary: int | None = None) -> Tensor | None:
    """Ids [B, R, k] that the teacher is asked to score, or None; vocabulary as in `signal`."""
    if spec.estimator != "student-top-k" or spec.k is None:
        return None
    return student_top_k.candidates(student_logits[..., :vocabulary], spec.k)


def signal(
    spec: Opd,
    student_logits: Tensor,
    scores: Scores,
    targets: Tensor,
    candidates: Tensor | None = None,
    vocabulary: int | None = None,
) -> Signal:
    """The loss and the readings from logits [B, R, V] of any dtype and targets [B, R].

    candidates: what `candidates` gave. vocabulary: how many columns student and teacher share (None: all of the
    student's); full scores carry it themselves.

    Errors: ValueError when the scores are not those of `support(spec)`, or wider than the student.
    """
    if scores.full is not None:
        vocabulary = scores.full.shape[-1]
    if vocabulary is not None and vocabulary > student_logits.shape[-1]:
        raise ValueError(f"the teacher scored {vocabulary} tokens, and the student knows {student_logits.shape[-1]}")
    ids = scores.ids if candidates is None else candidates
    log_s = log_softmax(student_logits[..., :vocabulary], spec.loss_temperature)
    log_s_y = select(log_s, targets)
    loss = _per_token(spec, log_s, log_s_y, scores, targets, ids)
    with torch.no_grad():
        log_ratio = log_s_y - scores.sampled
        return Signal(
            per_token=loss,
            logprobs=log_s_y.detach(),
            log_ratio=log_ratio,
            kl=_kl(spec, loss, log_s, scores, log_ratio),
            student_entropy=entropy(log_s),
            **_shared(spec, log_s, scores, ids),
        )


def _per_token(
    spec: Opd, log_s: Tensor, log_s_y: Tensor, scores: Scores, targets: Tensor, ids: Tensor | None
) -> Tensor:
    if spec.estimator == "policy-gradient":
        return policy_gradient.per_token(log_s_y, scores.sampled)
    if spec.estimator == "k2":
        return k2.per_token(log_s_y, scores.sampled)
    if spec.estimator == "full" and scores.full is not None:
        return divergence.per_token(log_s, scores.full, spec.divergence, spec.beta)
    if spec.estimator == "teacher-top-k" and scores.ids is not None and scores.top is not None:
        return teacher_top_k.per_token(log_s, scores.ids, scores.top, spec.divergence, spec.beta)
    if spec.estimator == "student-top-k" and ids is not None and scores.top is not None:
        return student_top_k.per_token(log_s, ids, scores.top, targets, scores.sampled)
    raise ValueError(f"estimator {spec.estimator!r} needs the teacher's scores on {support(spec)}")


def _kl(spec: Opd, loss: Tensor, log_s: Tensor, scores: Scores, log_ratio: Tensor) -> Tensor:
    if scores.full is None:
        return log_ratio
    if spec.estimator == "full" and spec.divergence == "reverse-kl":
        return loss.detach()
    return reverse_kl.per_token(log_s, scores.full)


def _shared(spec: Opd, log_s: Tensor, scores: Scores, ids: Tensor | None) -> dict[str, Tensor]:
    """Masses and overlap, as far as the scores tell them."""
    if spec.k is not None and ids is not None and scores.top is not None:
        read, log_t = ids, scores.top
        theirs = scores.ids if spec.estimator == "teacher-top-k" else None
    elif scores.full is not None:
        read = student_top_k.candidates(log_s, _READ)
        log_t = scores.full.gather(-1, read)
        theirs = student_top_k.candidates(scores.full, _READ)
    else:
        return {}
    readings = {"student_mass": log_s.gather(-1, read).exp().sum(-1), "teacher_mass": log_t.exp().sum(-1)}
    if theirs is not None:
        ours = student_top_k.candidates(log_s, theirs.shape[-1])
        readings["overlap"] = (ours.unsqueeze(-1) == theirs.unsqueeze(-2)).any(-1).float().mean(-1)
    return readings


class DistillLoss(Loss):
    """OPD on a step's responses: asks the teacher, selects tokens, and takes importance weights.

    Errors: ValueError naming a response's token that student and teacher do not share.
    """

    name = "opd"

    def __init__(self, spec: Opd, step: StepInputs, positions: Positions | None, mismatch: Mismatch | None) -> None:
        super().__init__(spec, step, positions, mismatch)
        rollout = step.recipe.rollout
        assert step.teacher is not None and step.teacher_batch is not None
        self.teacher, self.teacher_batch = step.teacher, step.teacher_batch
        _require_shared(self.batch, self.teacher.vocabulary)
        self.correction = rollout.correction if spec.estimator in SAMPLED else None
        self.importance = importance.StepWeights(self.correction.cap if self.correction else None)
        if not (rollout.on_policy and rollout.temperature == spec.loss_temperature):
            self.mismatch = None  # the rollout's log-probabilities are not comparable
        self.weight = weights(self.batch.mask, spec.normaliser, rollout.max_new_tokens)
        self.support = support(spec)
        self.scored: dict[int, Scores] = {}  # ahead of `loss`, by the first row
        if self.support.kind != "candidates":
            with step.phase("teacher"):
                self.teacher.prefetch([self.teacher_batch.rows(begin, end) for begin, end in step.spans], self.support)

    def loss(self, logits: Tensor, begin: int, end: int) -> Tensor:
        part = self.batch.rows(begin, end)
        ids = candidates(self.spec, logits, self.teacher.vocabulary)
        scores = self._score(begin, end, ids)
        signals = signal(self.spec, logits, scores, part.targets, ids, self.teacher.vocabulary)
        factor = self.weight[begin:end]
        if self.spec.selection:
            assert self.step.draws is not None
            draws = self.step.draws[begin:end, : part.width]
            readings = signals.log_ratio, scores.entropy, signals.student_entropy
            factor = factor * selection.factors(self.spec.selection, part.mask, *readings, draws)
        if self.mismatch is not None:
            self.mismatch.add(signals.logprobs, part.behaviour, part.mask)
        if self.correction:
            factor = factor * self.importance.add(signals.logprobs, part)
        if self.positions is not None:
            self.positions.add(
                part.mask,
                kl=signals.kl,
                entropy=signals.student_entropy,
                teacher_entropy=scores.entropy,
                student_mass=signals.student_mass,
                teacher_mass=signals.teacher_mass,
                overlap=signals.overlap,
            )
        return (signals.per_token * factor).sum()

    def rms(self) -> float:
        """Root mean square of log s(y) - log T(y), with s as it was when it drew y."""
        assert self.batch.behaviour is not None
        for begin, end in self.step.spans:
            self.scored[begin] = self._score(begin, end, None)
        sampled = torch.cat([scores.sampled for scores in self.scored.values()])
        begin, end = self.step.spans[0][0], self.step.spans[-1][1]
        mask = self.batch.mask[begin:end]
        mine, tokens = root_mean_square(self.batch.behaviour[begin:end] - sampled, mask), float((mask > 0).sum())
        squares, count = self.step.all_reduce([mine * mine * tokens, tokens])
        return mine if count == tokens else math.sqrt(squares / count)

    def summary(self) -> dict[str, float | None]:
        return self.importance.summary()

    def measurements(self) -> Any:
        return self.importance.measurements()

    def merge(self, measurements: Any) -> None:
        self.importance.merge(measurements, self.weight.device)

    def _score(self, begin: int, end: int, ids: Tensor | None) -> Scores:
        if begin in self.scored:
            return self.scored.pop(begin)
        with self.step.phase("teacher"):
            return self.teacher.score(self.teacher_batch.rows(begin, end), self.support, ids)


def _require_shared(batch: Batch, vocabulary: int) -> None:
    """A student's embedding may be padded past its tokens, and no teacher reads what is drawn there."""
    foreign = batch.targets[batch.targets >= vocabulary]
    if len(foreign):
        raise ValueError(
            f"a response holds token {int(foreign[0])}, and student and teacher share the {vocabulary} tokens from 0 "
            "up: it pads the student's embedding and stands for nothing; lower rollout.temperature, or start from a "
            "model that gives such columns no probability"
        )
