"""The processes of a trainer with several workers: Ray actors, a rank each, that stay together or end together.

The first is the run's `Host`, whose trainer leads; the others follow it (`opd_ops.training.leading`, `following`). They
meet at an address that the first one opens, the loopback one where all are on one node, and speak by gloo, or NCCL
where they have GPUs. Whichever of them is lost, the others are ended with it, and the run goes on from the store with
new ones, as it does where a single trainer dies.

Ray Train's TorchTrainer does the same with a controller between the run and its ranks: its worker group has a placement
group of its own, so that rollout and teacher actors could not be reserved together with it; its way of going on after a
death are its own checkpoints, beside the store's resume states, which another number of workers has to be able to
read; and what leads here is one process with its own clock and writer. What is left to do is this file.
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
from pipelines.runs.cluster.attach import BEAT, actor, attend, unwrap
from pipelines.runs.cluster.deaths import lost
from pipelines.runs.resources.placement import Placement

if TYPE_CHECKING:
    from opd_ops.training.ranks import Ranks

GRACE = 10.0  # seconds after a connection broke in which a death, its cause, is told


class Apart(RuntimeError):
    """The ranks of a trainer lost one another, and none is known to be dead."""


class Member:
    """An actor that may be a rank."""

    ranks: "Ranks | None" = None
    meeting: Any = None

    def place(self) -> tuple[str, str]:
        """The node that it is on, and the address of that."""
        import ray

        return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()

    def serve(self, address: str) -> int:
        """The port at this address where the ranks meet, which this actor serves from now on."""
        from opd_ops.training.ranks import serve

        self.meeting, port = serve(address)
        return port

    def join(self, address: str, port: int, rank: int, count: int, device: str, threads: int) -> None:
        """Meet the others. Errors: those of torch.distributed where they do not come."""
        import torch

        from opd_ops.training.ranks import Ranks, connect

        torch.set_num_threads(threads)
        if address == LOOPBACK:
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                os.environ.setdefault(name, _loopback())
        self.ranks = Ranks(connect(address, port) if rank else self.meeting, rank, count, device)


class Follower(Member):
    """The Ray actor of a rank past the first."""

    def __init__(self) -> None:
        import opd_ops.training.worker_rank  # noqa: F401  # five seconds, which all ranks spend at once

    def follow(self, name: str) -> None:
        """Do what the first rank says. Errors: StepFailed in one line for what fails here and is the run's own."""
        from opd_ops.training.worker_rank import WorkerRank
        from pipelines.runs.trajectories.run import StepFailed, reason

        assert self.ranks is not None
        try:
            WorkerRank(self.ranks).run()
        except Exception as error:
            line = None if came_apart(error) else reason(error)
            if line is None:
                raise
            raise StepFailed(
                f"{line} ({name}: on rank {self.ranks.rank} of {self.ranks.count}; the same command goes on from the "
                "newest resume state)"
            ) from error


@dataclass
class Group:
    """The ranks of a run in training. following: what the others' calls will return, once it is over."""

    following: list[Any] = field(default_factory=list)

    def attend(self, reference: Any, beat: Callable[[], None]) -> Any:
        """The result of a call of the first rank, calling `beat` every second while it runs.

        Errors: the call's own exception; that of another rank, which ends the group; Apart where only the connection
        between them is known to be broken.
        """
        import ray

        if not self.following:
            return attend(reference, beat)
        calls = [reference, *self.following]
        while not (ended := ray.wait(calls, timeout=BEAT)[0]):
            beat()
        if ended == [reference] and (error := _error(reference)) is None:
            return ray.get(reference)
        errors = self._told(calls)
        for error in (*(e for e in errors if isinstance(e, lost())), *(e for e in errors if not came_apart(e))):
            raise error
        first = str(errors[0]).splitlines()[0][:200] if errors else "one has left"
        raise Apart(f"its workers lost one another: {first}")

    def _told(self, calls: list[Any]) -> list[Exception]:
        """What the ranks ended with, once it says more than that a connection broke or GRACE is over."""
        import ray

        until = time.monotonic() + GRACE
        while True:
            ended = ray.wait(calls, num_returns=len(calls), timeout=0)[0]
            errors = [error for call in ended if (error := _error(call)) is not None]
            if any(not came_apart(error) for error in errors) or time.monotonic() > until:
                return errors
            time.sleep(0.1)


@contextmanager
def grouped(host: Any, recipe: Recipe, name: str, placement: Placement, beat: Callable[[], None]) -> Iterator[Group]:
    """The ranks of a run while the block lasts, of which `host` is the first. name: what messages call the run."""
    import ray

    if not placement.following:
        yield Group()
        return
    with ExitStack() as held:
        others = [held.enter_context(actor(Follower, spot.options())) for spot in placement.following]
        members = [host, *others]
        places = [attend(member.place.remote(), beat) for member in members]
        address = LOOPBACK if len({node for node, _ in places}) == 1 else places[0][1]
        port = attend(host.serve.remote(address), beat)
        device, threads = "cuda" if recipe.resources.gpus else "cpu", recipe.resources.threads
        joined = [
            member.join.remote(address, port, rank, len(members), device, threads)
            for rank, member in enumerate(members)
        ]
        for reference in joined:
            attend(reference, beat)
        group = Group([other.follow.remote(name) for other in others])
        try:
            yield group
        finally:
            for other in others:  # before the first rank, for whom they wait
                ray.kill(other)


def came_apart(error: BaseException) -> bool:
    """Whether it only says that another rank is not there any more."""
    from torch.distributed import DistError

    words = str(error).lower()
    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and any(word in words for word in ("gloo", "nccl", "connection closed"))
    )


def _error(reference: Any) -> Exception | None:
    """What a call that has ended raised."""
    import ray

    try:
        unwrap(lambda: ray.get(reference))
    except Exception as error:
        return error
    return None


def _loopback() -> str:
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
