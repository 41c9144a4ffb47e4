"""A teacher in this process: a frozen Hugging Face model."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from transformers import PreTrainedModel

from opd_ops.batch import Batch
from opd_ops.models import response_logits
from opd_ops.teacher.scores import Scores, Support


class LocalTeacher:
    """Scores by one forward of `model` per micro-batch.

    vocabulary: real tokens that student and teacher share; columns past it are padding of the embedding, and are cut
    off before the softmax. arithmetic: context of the forward, for autocast.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        digest: str,
        vocabulary: int | None = None,
        arithmetic: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self.model, self.digest, self.arithmetic = model.requires_grad_(False), digest, arithmetic
        self.vocabulary = vocabulary or model.config.vocab_size

    def prefetch(self, parts: Sequence[Batch], support: Support) -> None:
        """Nothing: this process computes nothing ahead."""

    def sleep(self) -> None:
        """Nothing: its memory is the trainer's own."""

    @torch.no_grad()
    def score(self, part: Batch, support: Support, candidates: Tensor | None = None) -> Scores:
        """Scores of a micro-batch. candidates: [B, R, k] token ids, for that support."""
        with self.arithmetic():
            logits = response_logits(self.model, part.ids, part.attention, part.positions, part.width)
        log_t = torch.log_softmax(logits[..., : self.vocabulary].float() / support.temperature, dim=-1)
        absent = part.mask == 0
        log_t.masked_fill_(absent.unsqueeze(-1), 0.0)
        # A token of the embedding's padding has no probability; it is under the mask only in a broken task.
        targets = part.targets.clamp(max=self.vocabulary - 1).unsqueeze(-1)
        sampled = log_t.gather(-1, targets).squeeze(-1)
        entropy = -(log_t.exp() * log_t).sum(-1) + 0.0  # not -0
        if support.kind == "full":
            return Scores(sampled=sampled, entropy=entropy, full=log_t)
        if support.kind == "top":
            top, ids = log_t.topk(min(support.k, self.vocabulary), dim=-1)
            return Scores(sampled=sampled, entropy=entropy, ids=ids.masked_fill(absent.unsqueeze(-1), 0), top=top)
        if support.kind == "candidates":
            assert candidates is not None
            top, ids = log_t.gather(-1, candidates), candidates.masked_fill(absent.unsqueeze(-1), 0)
            return Scores(sampled=sampled, entropy=entropy, ids=ids, top=top)
        return Scores(sampled=sampled, entropy=entropy)
