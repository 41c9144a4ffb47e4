"""Two processes over gloo on loopback: this one leads, the other follows; and what one process would have done."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.multiprocessing as mp

from opd_ops.training.following import Following
from opd_ops.training.ranks import Ranks, found, opened

LOOPBACK = "127.0.0.1"


def follow(port: int) -> None:
    """One trainer after the other, until the last is told."""
    torch.set_num_threads(1)
    ranks = Ranks(found(LOOPBACK, port), 1, 2)
    while ranks.told():
        try:
            Following(ranks).follow()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    ranks.end()


@contextmanager
def pair(*, parted: bool = False) -> Iterator[Ranks]:
    """Rank 0 of two. parted: the other does not follow to the end, and is ended."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store, port = opened(LOOPBACK)
    other = mp.get_context("spawn").Process(target=follow, args=(port,))
    other.start()
    ranks = Ranks(store, 0, 2)
    try:
        yield ranks
        if not parted:
            ranks.told(False)
            other.join(30)
            assert other.exitcode == 0
    finally:
        other.kill()
        ranks.end()
