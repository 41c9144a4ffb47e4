"""What becomes of a trainer whose ranks do not stand at the same place any more."""

from functools import partial

import pytest

from opd_ops.training import loop, rank0, student
from tests.opd_ops.training.pair import pair


def test_a_step_that_fails_on_one_rank_alone_is_no_state_to_go_on_from(trainer, monkeypatch):
    def fail(*given):
        raise MemoryError

    with pair(parted=True) as ranks:
        ranks.broadcast(True)
        monkeypatch.setattr(loop, "Trainer", partial(rank0.Rank0Trainer, ranks))
        run = trainer("sft")
        monkeypatch.setattr(student, "backward", fail)
        with pytest.raises(MemoryError):
            run.advance()
        assert run.broken
        with pytest.raises(RuntimeError, match=r"a step failed on rank 0, and the other ranks follow no more"):
            run.state()
