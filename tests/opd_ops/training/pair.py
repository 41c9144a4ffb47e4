"""Two processes over gloo on loopback: this one leads, the other follows; and what one process would have done."""

import os
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from opd_ops.training.following import Following
from opd_ops.training.ranks import Ranks

PATIENCE = timedelta(seconds=60)
LOOPBACK = "127.0.0.1"


def meeting(port: int, listener: socket.socket | None = None):
    descriptor = {} if listener is None else {"master_listen_fd": listener.detach()}
    return dist.TCPStore(LOOPBACK, port, 2, listener is not None, PATIENCE, wait_for_workers=False, **descriptor)


def follow(port: int) -> None:
    """One trainer after the other, until the last is told."""
    torch.set_num_threads(1)
    ranks = Ranks(meeting(port), 1, 2)
    while ranks.told():
        try:
            Following(ranks).follow()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    ranks.end()


@contextmanager
def pair() -> Iterator[Ranks]:
    """Rank 0 of two."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        other = mp.get_context("spawn").Process(target=follow, args=(port,))
        other.start()
        store = meeting(port, listener)
    ranks = Ranks(store, 0, 2)
    try:
        yield ranks
        ranks.told(False)
        other.join(30)
        assert other.exitcode == 0
    finally:
        other.kill()
        ranks.end()
