"""The data parallel ranks of a trainer with several workers: one Ray actor each, which start and end together.

Rank 0 is the run's `Host` (`opd_ops.training.rank0`); the others run `opd_ops.training.worker_rank`. Rank 0 serves the
rendezvous, on the loopback address where all are on one node. Objects travel by gloo, and tensors by NCCL between GPUs.
When one rank dies the others are killed, and new ones go on from the store, as after the death of a single trainer.

Why not Ray Train's TorchTrainer: its worker group has its own placement group, so rollout and teacher actors could not
be reserved together with it; and it restarts from its own checkpoints, while a resume state here must load with any
number of workers.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opd_ops.recipe import Recipe
from pipelines.runs.cluster.address import LOOPBACK
from pipelines.runs.cluster.attach import BEAT, actor, unwrap, wait_for
from pipelines.runs.cluster.worker_failures import worker_failure_types
from pipelines.runs.resources.placement import Placement

if TYPE_CHECKING:
    from opd_ops.training.ranks import Ranks

GRACE = 10.0  # seconds after a broken connection in which the death that caused it may be reported


class ConnectionLost(RuntimeError):
    """The ranks of a trainer lost one another, and none is known to be dead."""


class RankActor:
    """An actor that may be a rank. rendezvous: the store that rank 0 serves."""

    ranks: "Ranks | None" = None
    rendezvous: Any = None

    def find_node(self) -> tuple[str, str]:
        """Its node's id and IP address."""
        import ray

        return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()

    def serve(self, address: str) -> int:
        """Serve the rendezvous on this address; the port."""
        from opd_ops.training.ranks import serve

        self.rendezvous, port = serve(address)
        return port

    def join(self, address: str, port: int, rank: int, count: int, device: str, threads: int) -> None:
        """Join the process group. Errors: those of torch.distributed where other ranks do not."""
        import torch

        from opd_ops.training.ranks import Ranks, connect

        torch.set_num_threads(threads)
        if address == LOOPBACK:
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                os.environ.setdefault(name, _loopback_interface())
        self.ranks = Ranks(connect(address, port) if rank else self.rendezvous, rank, count, device)


class WorkerActor(RankActor):
    """The Ray actor of a rank past the first."""

    def __init__(self) -> None:
        import opd_ops.training.worker_rank  # noqa: F401  # five seconds, which all ranks spend at once

    def run(self, name: str) -> None:
        """Execute rank 0's commands. Errors: StepFailed in one line for a failure here that is the run's own."""
        from opd_ops.training.worker_rank import WorkerRank
        from pipelines.runs.trajectories.failures import StepFailed, explain

        assert self.ranks is not None
        try:
            WorkerRank(self.ranks).run()
        except Exception as error:
            line = None if is_connection_error(error) else explain(error)
            if line is None:
                raise
            raise StepFailed(
                f"{line} ({name}: on rank {self.ranks.rank} of {self.ranks.count}; the same command goes on from the "
                "newest resume state)"
            ) from error


@dataclass
class Group:
    """The ranks of a run in training. worker_calls: of the worker ranks, which return at the end of the run."""

    worker_calls: list[Any] = field(default_factory=list)

    def wait_for(self, reference: Any, beat: Callable[[], None]) -> Any:
        """The result of a call of rank 0, calling `beat` every second while it runs.

        Errors: the call's own exception; that of another rank, which ends the group; ConnectionLost where no rank is
        known to be dead.
        """
        import ray

        if not self.worker_calls:
            return wait_for(reference, beat)
        calls = [reference, *self.worker_calls]
        while not (ended := ray.wait(calls, timeout=BEAT)[0]):
            beat()
        if ended == [reference] and (error := _error_of(reference)) is None:
            return ray.get(reference)
        errors = self._collect_errors(calls)
        for error in (
            *(e for e in errors if isinstance(e, worker_failure_types())),
            *(e for e in errors if not is_connection_error(e)),
        ):
            raise error
        first = str(errors[0]).splitlines()[0][:200] if errors else "one has left"
        raise ConnectionLost(f"its workers lost one another: {first}")

    def _collect_errors(self, calls: list[Any]) -> list[Exception]:
        """The errors of the ranks that ended, once one of them is more than a broken connection, or GRACE is over."""
        import ray

        until = time.monotonic() + GRACE
        while True:
            ended = ray.wait(calls, num_returns=len(calls), timeout=0)[0]
            errors = [error for call in ended if (error := _error_of(call)) is not None]
            if any(not is_connection_error(error) for error in errors) or time.monotonic() > until:
                return errors
            time.sleep(0.1)


@contextmanager
def start_ranks(
    host: Any, recipe: Recipe, name: str, placement: Placement, beat: Callable[[], None]
) -> Iterator[Group]:
    """The ranks of a run while the block lasts; rank 0 is `host`. name: of the run, in messages."""
    import ray

    if not placement.workers:
        yield Group()
        return
    with ExitStack() as stack:
        others = [stack.enter_context(actor(WorkerActor, spot.options())) for spot in placement.workers]
        members = [host, *others]
        places = [wait_for(member.find_node.remote(), beat) for member in members]
        address = LOOPBACK if len({node for node, _ in places}) == 1 else places[0][1]
        port = wait_for(host.serve.remote(address), beat)
        device, threads = "cuda" if recipe.resources.gpus else "cpu", recipe.resources.threads
        joined = [
            member.join.remote(address, port, rank, len(members), device, threads)
            for rank, member in enumerate(members)
        ]
        for reference in joined:
            wait_for(reference, beat)
        group = Group([other.run.remote(name) for other in others])
        try:
            yield group
        finally:
            for other in others:  # before rank 0, for which they wait
                ray.kill(other)


def is_connection_error(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone."""
    from torch.distributed import DistError

    words = str(error).lower()
    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and any(word in words for word in ("gloo", "nccl", "connection closed"))
    )


def _error_of(reference: Any) -> Exception | None:
    """The exception of a call that has ended."""
    import ray

    try:
        unwrap(lambda: ray.get(reference))
    except Exception as error:
        return error
    return None


def _loopback_interface() -> str:
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
