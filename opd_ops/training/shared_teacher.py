"""One teacher for data parallel ranks: rank 0 scores the micro-batches of every rank and scatters the scores.

All ranks ask equally often: the k-th micro-batches of all ranks are scored together. A teacher that fails ends the step
on every rank.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from opd_ops.batch import Batch, map_tensors
from opd_ops.teacher.scores import Scorer, Scores, Support
from opd_ops.training.ranks import Ranks


class Abandoned(Exception):
    """Rank 0 has given up the step, and raises the cause itself."""


class SharedTeacher:
    """The `Scorer` of a step on one rank.

    teacher_batch: the whole batch as the teacher reads it. spans: every rank's micro-batches. vocabulary: of the
    teacher. teacher: on rank 0. failed: the teacher failed, and every rank knows.
    """

    def __init__(
        self,
        ranks: Ranks,
        teacher_batch: Batch,
        spans: Sequence[Sequence[tuple[int, int]]],
        vocabulary: int,
        teacher: Scorer | None = None,
    ) -> None:
        self.ranks, self.teacher_batch, self.spans, self.teacher = ranks, teacher_batch, spans, teacher
        self.vocabulary, self.digest = vocabulary, teacher.digest if teacher else ""
        self.failed = False
        self._round = 0

    def prefetch(self, parts: Sequence[Batch], support: Support) -> None:
        """The micro-batches of all ranks, in the order in which they will be asked for. Errors: as `score`."""
        if self.teacher is None:
            if not self.ranks.broadcast():
                raise Abandoned
            return
        spans = [(begin, end) for round in zip(*self.spans, strict=True) for begin, end in round if begin < end]
        with self._tell_failure(lambda: self.ranks.broadcast(False)):
            self.teacher.prefetch([self.teacher_batch.rows(begin, end) for begin, end in spans], support)
        self.ranks.broadcast(True)

    def sleep(self) -> None:
        """Nothing: rank 0 puts the teacher to sleep itself."""

    def score(self, part: Batch, support: Support, candidates: Tensor | None = None) -> Scores:
        """This rank's scores. Errors: on rank 0 those of the teacher, elsewhere Abandoned."""
        ids = None
        if support.kind == "candidates":
            ids = self.ranks.gather(None if candidates is None else candidates.cpu())
        if self.teacher is None:
            scores = self.ranks.scatter()
            if scores is None:
                raise Abandoned
            return map_tensors(scores, lambda x: x.to(part.mask.device))
        with self._tell_failure(lambda: self.ranks.scatter([None] * self.ranks.count)):
            answers = self._score_all(self.teacher, support, ids)
        self.ranks.scatter([None, *(map_tensors(scores, torch.Tensor.cpu) for scores in answers[1:])])
        return answers[0]

    @contextmanager
    def _tell_failure(self, tell: Callable[[], Any]) -> Iterator[None]:
        try:
            yield
        except BaseException:
            tell()
            self.failed = True
            raise

    def _score_all(self, teacher: Scorer, support: Support, ids: list[Tensor] | None) -> list[Scores]:
        """The scores of every rank's next micro-batch; one without rows gets none of the first rank's."""
        answers: list[Scores] = []
        for rank, spans in enumerate(self.spans):
            begin, end = spans[self._round % len(spans)]
            if begin == end:
                answers.append(map_tensors(answers[0], lambda x: x[:0]))
                continue
            candidates = None if ids is None else ids[rank].to(self.teacher_batch.ids.device)
            answers.append(teacher.score(self.teacher_batch.rows(begin, end), support, candidates))
        self._round += 1
        return answers
