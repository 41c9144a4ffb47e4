"""Two processes over gloo on loopback: this one is rank 0, the other a worker rank."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.multiprocessing as mp

from opd_ops.training.ranks import Ranks, connect, serve
from opd_ops.training.worker_rank import WorkerRank

LOOPBACK = "127.0.0.1"


def follow(port: int) -> None:
    """One trainer after the other, until rank 0 broadcasts False."""
    torch.set_num_threads(1)
    ranks = Ranks(connect(LOOPBACK, port), 1, 2)
    while ranks.broadcast():
        try:
            WorkerRank(ranks).run()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    ranks.close()


@contextmanager
def pair(*, parted: bool = False) -> Iterator[Ranks]:
    """Rank 0 of two. parted: the other does not follow to the end, and is ended."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store, port = serve(LOOPBACK)
    other = mp.get_context("spawn").Process(target=follow, args=(port,))
    other.start()
    ranks = Ranks(store, 0, 2)
    try:
        yield ranks
        if not parted:
            ranks.broadcast(False)
            other.join(30)
            assert other.exitcode == 0
    finally:
        other.kill()
        ranks.close()
