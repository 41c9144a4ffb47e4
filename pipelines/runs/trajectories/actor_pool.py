"""Actors of one class that share calls; an actor that dies is restarted, and its calls are repeated.

Calls are dealt in turn, and an actor runs its own in order. What a call returns must not depend on the actor, so that
neither their number nor a restart changes a result. A method's own exception is raised and never retried. An actor that
was killed because memory was short is not replaced while there is another, which takes over its calls.

Ray's `max_restarts` would restart an actor with the arguments of its creation; here a new actor begins with the weights
of now, and what it loaded is compared. `ray.util.ActorPool` restarts nothing.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.runs.cluster.attach import unwrap
from pipelines.runs.cluster.worker_failures import (
    RETRIES,
    WorkerFailed,
    describe_failure,
    is_out_of_memory,
    warn,
    worker_failure_types,
)
from pipelines.runs.resources.placement import Spot

PAUSE = 5.0  # seconds after an only actor was killed for memory, longer each time
START = 600.0  # seconds for a new actor to be placed, import torch and load its model


@dataclass(eq=False)
class Call:
    """One call of a method by one member of a pool; `reference` is Ray's."""

    method: str
    arguments: tuple[Any, ...]
    member: "Member"
    reference: Any = None


@dataclass(eq=False)
class Member:
    """One actor: its place, its start, the calls that wait for it, and its deaths since it last answered."""

    spot: Spot
    handle: Any = None
    start: Any = None  # Ray's reference; None once it has been collected
    calls: list[Call] = field(default_factory=list)
    deaths: int = 0


class ActorPool:
    """Actors of class `kind`, one per spot, each of which is set up by the call `begin(handle)`.

    name: what messages call one of them. begun: receives what `begin` returned. replaced: how many actors were.
    Errors of every method: WorkerFailed, in one line, when an actor died more than `retries` times at one call.
    """

    def __init__(
        self,
        name: str,
        kind: type,
        spots: Sequence[Spot],
        begin: Callable[[Any], Any],
        begun: Callable[[Any], None],
        *,
        retries: int = RETRIES,
        start: float = START,
    ) -> None:
        self.name, self.kind, self.begin, self.begun = name, kind, begin, begun
        self.retries, self.start = retries, start
        self.replaced = self._dealt = 0
        self.members = [Member(spot) for spot in spots]
        for member in self.members:
            self._start_actor(member)

    def wait(self) -> None:
        """Wait until every actor has started."""
        for member in tuple(self.members):
            while member.start is not None:
                try:
                    self._collect_start(member)
                except worker_failure_types() as failure:
                    self._restart(member, failure)

    def call_each(self, method: str, *arguments: Any) -> list[Any]:
        """What `method` returns of every actor."""
        return self._collect_all([self._submit(member, method, arguments) for member in self.members])

    def call_first(self, method: str, *arguments: Any) -> Any:
        """What `method` returns of the first actor."""
        return self.collect(self._submit(self.members[0], method, arguments))

    def map(self, method: str, arguments: Iterable[tuple[Any, ...]]) -> list[Any]:
        """One call per tuple of arguments, dealt over the actors; the results in order."""
        return self._collect_all([self.submit(method, *values) for values in arguments])

    def submit(self, method: str, *arguments: Any) -> Call:
        """Start a call at the actor whose turn it is."""
        member = self.members[self._dealt % len(self.members)]
        self._dealt += 1
        return self._submit(member, method, arguments)

    def collect(self, call: Call) -> Any:
        """The result of a call, once."""
        import ray

        try:
            while True:
                member = call.member  # a failure may hand the call to another
                try:
                    self._collect_start(member)
                    result = unwrap(lambda: ray.get(call.reference))
                except worker_failure_types() as failure:
                    self._restart(member, failure)
                else:
                    member.deaths = 0
                    return result
        finally:
            self.discard(call)

    def discard(self, call: Call) -> None:
        """Forget a call, whose result is not needed."""
        if call in call.member.calls:
            call.member.calls.remove(call)

    def close(self) -> None:
        """Kill the actors."""
        import ray

        for member in self.members:
            ray.kill(member.handle)

    def _collect_all(self, calls: list[Call]) -> list[Any]:
        try:
            return [self.collect(call) for call in calls]
        finally:
            for call in calls:
                self.discard(call)

    def _submit(self, member: Member, method: str, arguments: tuple[Any, ...]) -> Call:
        call = Call(method, arguments, member)
        member.calls.append(call)
        self._send(call)
        return call

    def _send(self, call: Call) -> None:
        call.reference = getattr(call.member.handle, call.method).remote(*call.arguments)

    def _start_actor(self, member: Member) -> None:
        """Start a new actor at the member's place."""
        import ray

        options = member.spot.options()
        remote: Any = ray.remote(**options) if options else ray.remote
        member.handle = remote(self.kind).remote()
        member.start = self.begin(member.handle)

    def _collect_start(self, member: Member) -> None:
        import ray

        if member.start is None:
            return
        if not ray.wait([member.start], timeout=self.start)[0]:
            raise WorkerFailed(
                f"a {self.name} has not started within {self.start:g} s: "
                "is what was reserved for it still there? (`ray status`)"
            )
        self.begun(unwrap(lambda: ray.get(member.start)))
        member.start = None

    def _restart(self, member: Member, failure: Exception) -> None:
        """Restart an actor that died and repeat its calls; by the next actor where memory was short."""
        import ray

        member.deaths += 1
        if member.deaths > self.retries:
            raise WorkerFailed(
                f"a {self.name} died {member.deaths} times at the same call, which was repeated {self.retries} times "
                f"({describe_failure(failure)}); give it more memory, and start the run again: it goes on"
            )
        ray.kill(member.handle)
        if is_out_of_memory(failure):
            if len(self.members) > 1:
                self._retire(member, failure)
                return
            warn(f"a {self.name} was lost ({describe_failure(failure)}); another repeats its calls")
            time.sleep(PAUSE * member.deaths)
        self.replaced += 1
        self._start_actor(member)
        for call in member.calls:
            self._send(call)

    def _retire(self, member: Member, failure: Exception) -> None:
        """Hand an actor's calls to the next one, whose deaths count on from its own."""
        index = self.members.index(member)
        self.members.remove(member)
        member.start = None
        heir = self.members[index % len(self.members)]
        heir.deaths = max(heir.deaths, member.deaths)
        warn(f"a {self.name} was lost ({describe_failure(failure)}); the {len(self.members)} left go on without it")
        calls, member.calls = member.calls, []
        for call in calls:
            call.member = heir
            heir.calls.append(call)
            self._send(call)
