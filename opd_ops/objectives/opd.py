"""On-policy distillation as a recipe words it: the per-token loss, and the readings that say what it did.

Prefixes are the rollouts' and fixed. The loss temperature divides the student's logits here; the teacher's scores come
at it. Both distributions are over the vocabulary that the two share, so a student's padding columns are cut off before
the softmax. Normalisation: `objective.weights`; there is no factor of the squared temperature.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from opd_ops.objectives import divergence, k2, policy_gradient, reverse_kl, student_top_k, teacher_top_k
from opd_ops.recipe.objective import Opd
from opd_ops.teacher.scores import Scores, Support

_READ = 16  # size of the set whose masses and overlap are read where the estimator has none


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What one micro-batch says, [B, R] fp32 each; all but `per_token` without gradient.

    per_token: the loss. chosen: log s(y) of the target. gap: log s(y) - log T(y). kl: KL(s || T), exact where the whole
    vocabulary was scored, else the gap, its one-sample estimate. student_entropy: in nats.
    student_mass, teacher_mass: of s and T on the estimator's top-k set, or on the student's 16 likeliest tokens where
    the whole vocabulary was scored. overlap: share of the student's top-k that is in the teacher's. None: not known.
    """

    per_token: Tensor
    chosen: Tensor
    gap: Tensor
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
    log_s = _log_softmax(student_logits[..., :vocabulary], spec.loss_temperature)
    log_s_y = log_s.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    loss = _per_token(spec, log_s, log_s_y, scores, targets, ids)
    with torch.no_grad():
        gap = log_s_y - scores.sampled
        return Signal(
            per_token=loss,
            chosen=log_s_y.detach(),
            gap=gap,
            kl=_kl(spec, loss, log_s, scores, gap),
            student_entropy=-log_s.exp().mul_(log_s).sum(-1),
            **_shared(spec, log_s, scores, ids),
        )


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    scaled = logits if temperature == 1 else logits.float() / temperature
    return torch.log_softmax(scaled, dim=-1, dtype=torch.float32)


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


def _kl(spec: Opd, loss: Tensor, log_s: Tensor, scores: Scores, gap: Tensor) -> Tensor:
    if scores.full is None:
        return gap
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
    found = {"student_mass": log_s.gather(-1, read).exp().sum(-1), "teacher_mass": log_t.exp().sum(-1)}
    if theirs is not None:
        ours = student_top_k.candidates(log_s, theirs.shape[-1])
        found["overlap"] = (ours.unsqueeze(-1) == theirs.unsqueeze(-2)).any(-1).float().mean(-1)
    return found
