"""One teacher for several ranks: rank 0 asks it, for every rank in turn, and hands out what it said.

The k-th question of every rank is answered together, so all ranks ask equally often. A teacher that fails ends the step
on every rank.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from opd_ops.batch import Batch
from opd_ops.teacher.scores import Scorer, Scores, Support
from opd_ops.training.ranks import Ranks


class Abandoned(Exception):
    """Rank 0 has given the step up, and says why itself."""


class Asking:
    """The `Scorer` of a step on one rank.

    behind: the whole batch as the teacher reads it. spans: every rank's micro-batches. teacher: on rank 0. vocabulary:
    as the teacher has it.
    """

    def __init__(
        self,
        ranks: Ranks,
        behind: Batch,
        spans: Sequence[Sequence[tuple[int, int]]],
        vocabulary: int,
        teacher: Scorer | None = None,
    ) -> None:
        self.ranks, self.behind, self.spans, self.teacher = ranks, behind, spans, teacher
        self.vocabulary, self.digest = vocabulary, teacher.digest if teacher else ""
        self.failed = False  # and every rank knows
        self._round = 0

    def prefetch(self, parts: Sequence[Batch], support: Support) -> None:
        """The micro-batches of all ranks, in the order in which they will be asked for. Errors: as `score`."""
        if self.teacher is None:
            if not self.ranks.told():
                raise Abandoned
            return
        asked = [(begin, end) for each in zip(*self.spans, strict=True) for begin, end in each if begin < end]
        with self._failing(lambda: self.ranks.told(False)):
            self.teacher.prefetch([self.behind.rows(begin, end) for begin, end in asked], support)
        self.ranks.told(True)

    def sleep(self) -> None:
        """Rank 0 tells the teacher itself."""

    def score(self, part: Batch, support: Support, candidates: Tensor | None = None) -> Scores:
        """This rank's scores. Errors: on rank 0 those of the teacher, elsewhere Abandoned."""
        chosen = None
        if support.kind == "candidates":
            chosen = self.ranks.gathered(None if candidates is None else candidates.cpu())
        if self.teacher is None:
            found = self.ranks.given()
            if found is None:
                raise Abandoned
            return _each(found, lambda x: x.to(part.mask.device))
        with self._failing(lambda: self.ranks.given([None] * self.ranks.count)):
            answers = self._answers(self.teacher, support, chosen)
        self.ranks.given([None, *(_each(scores, torch.Tensor.cpu) for scores in answers[1:])])
        return answers[0]

    @contextmanager
    def _failing(self, tell: Callable[[], Any]) -> Iterator[None]:
        try:
            yield
        except BaseException:
            tell()
            self.failed = True
            raise

    def _answers(self, teacher: Scorer, support: Support, chosen: list[Tensor] | None) -> list[Scores]:
        """Of every rank; a rank without rows gets no rows of the first one's."""
        answers: list[Scores] = []
        for rank, spans in enumerate(self.spans):
            begin, end = spans[self._round % len(spans)]
            if begin == end:
                answers.append(_each(answers[0], lambda x: x[:0]))
                continue
            candidates = None if chosen is None else chosen[rank].to(self.behind.ids.device)
            answers.append(teacher.score(self.behind.rows(begin, end), support, candidates))
        self._round += 1
        return answers


def _each(scores: Scores, change: Callable[[Tensor], Tensor]) -> Scores:
    tensors = {f.name: getattr(scores, f.name) for f in fields(Scores)}
    return replace(scores, **{name: change(x) for name, x in tensors.items() if isinstance(x, Tensor)})
