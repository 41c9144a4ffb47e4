"""The processes that train one student together: a rank each, and what they say to one another.

Rank 0 leads: it tells the others what comes next, and they follow until it says no more. Tensors of the student travel
by the device's own backend (gloo for CPUs, NCCL for GPUs), messages always by gloo. Every call here is made by all
ranks, in the same order.
"""

import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

SILENCE = timedelta(hours=24)  # that a message is waited for: rank 0 may draw, evaluate or write meanwhile
PASS = timedelta(minutes=30)  # that one exchange of tensors may take
MEETING = timedelta(minutes=5)  # that the ranks have to find one another


def opened(address: str) -> tuple[Any, int]:
    """Where ranks meet, served by this process at a free port of an address of its own, and nowhere else; the port."""
    with socket.create_server((address, 0)) as listener:
        port = listener.getsockname()[1]
        store: Any = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
            address, port, None, True, MEETING, wait_for_workers=False, master_listen_fd=listener.detach()
        )
    return store, port


def found(address: str, port: int) -> Any:
    """Where ranks meet, as another process `opened` it."""
    return dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
        address, port, None, False, MEETING, wait_for_workers=False
    )


class Ranks:
    """`count` processes of which this one is `rank`, on a device of their own each.

    store: where they meet (`opened`, `found`). Errors: those of torch.distributed where one is gone.
    """

    def __init__(self, store: Any, rank: int, count: int, device: str = "cpu") -> None:
        kind = torch.device(device).type
        backend = "gloo" if kind == "cpu" else f"cpu:gloo,{kind}:nccl"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PASS)
        self.rank, self.count, self.device = rank, count, torch.device(device)
        self.mesh = init_device_mesh(kind, (count,))
        self.messages: Any = dist.new_group(backend="gloo", timeout=SILENCE)

    def told(self, what: Any = None) -> Any:
        """What rank 0 says, whatever the others give."""
        box = [what]
        dist.broadcast_object_list(box, 0, self.messages)
        return box[0]

    def gathered(self, what: Any) -> list[Any]:
        """What every rank gives, in order, on rank 0; nothing elsewhere."""
        found: list[Any] = [None] * self.count
        dist.gather_object(what, found if self.rank == 0 else None, 0, self.messages)
        return found if self.rank == 0 else []

    def given(self, each: Sequence[Any] | None = None) -> Any:
        """This rank's of what rank 0 has for each."""
        box: list[Any] = [None]
        dist.scatter_object_list(box, None if each is None else list(each), 0, self.messages)
        return box[0]

    def total(self, values: list[float]) -> list[float]:
        """Sums over all ranks, in float64."""
        found = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(found, group=self.messages)
        return found.tolist()

    def whole(self, part: Tensor, shape: Sequence[int]) -> Tensor:
        """A tensor of this shape from the parts that `part` gave, on every rank."""
        stride = torch.empty(tuple(shape), device="meta").stride()
        sharded = DTensor.from_local(
            part, self.mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=stride
        )
        return sharded.full_tensor()

    def part(self, whole: Tensor | None, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """This rank's rows of rank 0's `whole`, as `fully_shard` has them: equal blocks, the last ones maybe short."""
        if whole is None:
            whole = torch.empty(tuple(shape), dtype=dtype)
        sharded = distribute_tensor(whole.to(self.device, dtype), self.mesh, [Shard(0)])
        return sharded.to_local().clone()

    def span(self, rows: int) -> tuple[int, int]:
        """This rank's rows of a batch: blocks in order, whose lengths differ by one at most, the longer ones first."""
        return span(self.rank, self.count, rows)

    def end(self) -> None:
        """Leave the group."""
        dist.destroy_process_group()


def span(rank: int, count: int, rows: int) -> tuple[int, int]:
    """Rows begin..end of a rank: blocks in order, whose lengths differ by one at most, the longer ones first."""
    least, over = divmod(rows, count)
    begin = rank * least + min(rank, over)
    return begin, begin + least + (rank < over)


def spans(rank: int, count: int, rows: int, size: int) -> list[tuple[int, int]]:
    """A rank's micro-batches of at most `size` rows: as many for every rank, the last of which may have no rows."""
    begin, end = span(rank, count, rows)
    rounds = -(-span(0, count, rows)[1] // size)
    found = [(first, min(first + size, end)) for first in range(begin, end, size)]
    return found + [(end, end)] * (rounds - len(found))
