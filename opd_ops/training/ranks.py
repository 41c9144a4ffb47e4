"""The data parallel ranks of a trainer, one process each, and the collectives between them.

Rank 0 broadcasts commands, and the worker ranks execute them. Tensors of the student travel by the device's backend
(gloo for CPUs, NCCL for GPUs), Python objects by gloo. Every method is a collective: all ranks call it, in one order.
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

OBJECT_TIMEOUT = timedelta(hours=24)  # of a collective of objects: rank 0 may draw, evaluate or write meanwhile
TENSOR_TIMEOUT = timedelta(minutes=30)  # of a collective of tensors
CONNECT_TIMEOUT = timedelta(minutes=5)  # until all ranks have connected


def serve(address: str) -> tuple[Any, int]:
    """The rendezvous store of the ranks, served by this process on that address alone, and its port, a free one."""
    with socket.create_server((address, 0)) as listener:
        port = listener.getsockname()[1]
        store: Any = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
            address, port, None, True, CONNECT_TIMEOUT, wait_for_workers=False, master_listen_fd=listener.detach()
        )
    return store, port


def connect(address: str, port: int) -> Any:
    """The rendezvous store that another process serves."""
    return dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
        address, port, None, False, CONNECT_TIMEOUT, wait_for_workers=False
    )


class Ranks:
    """`count` processes of which this one is `rank`, each on a device of its own.

    store: the rendezvous (`serve`, `connect`). Errors: those of torch.distributed where a rank is gone.
    """

    def __init__(self, store: Any, rank: int, count: int, device: str = "cpu") -> None:
        kind = torch.device(device).type
        backend = "gloo" if kind == "cpu" else f"cpu:gloo,{kind}:nccl"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TENSOR_TIMEOUT)
        self.rank, self.count, self.device = rank, count, torch.device(device)
        self.mesh = init_device_mesh(kind, (count,))
        self.objects: Any = dist.new_group(backend="gloo", timeout=OBJECT_TIMEOUT)

    def broadcast(self, value: Any = None) -> Any:
        """Rank 0's object, on every rank; the other ranks' argument is ignored."""
        box = [value]
        dist.broadcast_object_list(box, 0, self.objects)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's object, in order, on rank 0; an empty list elsewhere."""
        values: list[Any] = [None] * self.count
        dist.gather_object(value, values if self.rank == 0 else None, 0, self.objects)
        return values if self.rank == 0 else []

    def scatter(self, values: Sequence[Any] | None = None) -> Any:
        """This rank's object of rank 0's list of one for each rank."""
        box: list[Any] = [None]
        dist.scatter_object_list(box, None if values is None else list(values), 0, self.objects)
        return box[0]

    def all_reduce(self, values: list[float]) -> list[float]:
        """Sums over all ranks, in float64."""
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums, group=self.objects)
        return sums.tolist()

    def all_gather(self, shard: Tensor, shape: Sequence[int]) -> Tensor:
        """The whole tensor of this shape, on every rank, from the ranks' shards."""
        stride = torch.empty(tuple(shape), device="meta").stride()
        sharded = DTensor.from_local(
            shard, self.mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=stride
        )
        return sharded.full_tensor()

    def shard(self, tensor: Tensor | None, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """This rank's rows of rank 0's tensor, in `fully_shard`'s blocks: equal ones, the last of them maybe short."""
        if tensor is None:
            tensor = torch.empty(tuple(shape), dtype=dtype)
        sharded = distribute_tensor(tensor.to(self.device, dtype), self.mesh, [Shard(0)])
        return sharded.to_local().clone()

    def close(self) -> None:
        """Leave the process group."""
        dist.destroy_process_group()


def span(rank: int, count: int, rows: int) -> tuple[int, int]:
    """Rows begin..end of a rank: blocks in order, whose lengths differ by one at most, the longer ones first."""
    least, over = divmod(rows, count)
    begin = rank * least + min(rank, over)
    return begin, begin + least + (rank < over)


def spans(rank: int, count: int, rows: int, size: int) -> list[tuple[int, int]]:
    """A rank's micro-batches of at most `size` rows: equally many for every rank, the last maybe without rows."""
    begin, end = span(rank, count, rows)
    rounds = -(-span(0, count, rows)[1] // size)
    batches = [(first, min(first + size, end)) for first in range(begin, end, size)]
    return batches + [(end, end)] * (rounds - len(batches))
