"""Actors of one class that share calls, each of which may be repeated; an actor that dies is replaced.

Calls are dealt in turn, and an actor does its own in order. What a call returns must not depend on the actor, so that
neither their number nor a replacement changes a result. A method's own exception is raised, and never retried. An
actor that was killed because memory was short is not replaced while there is another, which takes over its calls.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.runs.cluster.attach import unwrap
from pipelines.runs.cluster.deaths import RETRIES as RETRIES
from pipelines.runs.cluster.deaths import Died as Died
from pipelines.runs.cluster.deaths import lost, reason, starved, tell
from pipelines.runs.resources.placement import Spot

PAUSE = 5.0  # seconds after an only actor was killed for memory, longer each time
START = 600.0  # seconds for a new actor to find its place, import torch and load its model


@dataclass(eq=False)
class Call:
    """One call of a method by one member of a crew; `reference` is Ray's."""

    method: str
    arguments: tuple[Any, ...]
    member: "Member"
    reference: Any = None


@dataclass(eq=False)
class Member:
    """One actor: where it stands, how it started, the calls that wait for it, its deaths since it last answered."""

    spot: Spot
    handle: Any = None
    start: Any = None  # Ray's reference; None once it has been collected
    calls: list[Call] = field(default_factory=list)
    deaths: int = 0


class Crew:
    """Actors of class `kind`, one per spot, each of which is made fit by the call `begin(handle)`.

    name: what messages call one of them. begun: hears what `begin` returned. replaced: actors since the crew was made.
    Errors of every method: Died, in one line, when an actor died more than `retries` times at one call.
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
            self._stand(member)

    def wait(self) -> None:
        """Until every actor has started."""
        for member in tuple(self.members):
            while member.start is not None:
                try:
                    self._started(member)
                except lost() as death:
                    self._replace(member, death)

    def each(self, method: str, *arguments: Any) -> list[Any]:
        """What `method` returns of every actor."""
        return self._all([self._submit(member, method, arguments) for member in self.members])

    def first(self, method: str, *arguments: Any) -> Any:
        """What `method` returns of the first actor."""
        return self.collect(self._submit(self.members[0], method, arguments))

    def share(self, method: str, arguments: Iterable[tuple[Any, ...]]) -> list[Any]:
        """One call per tuple of arguments, dealt over the actors; the results in order."""
        return self._all([self.submit(method, *given) for given in arguments])

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
                member = call.member  # who may be another after a death
                try:
                    self._started(member)
                    result = unwrap(lambda: ray.get(call.reference))
                except lost() as death:
                    self._replace(member, death)
                else:
                    member.deaths = 0
                    return result
        finally:
            self.discard(call)

    def discard(self, call: Call) -> None:
        """Ask no more for a call's result."""
        if call in call.member.calls:
            call.member.calls.remove(call)

    def close(self) -> None:
        """End the actors."""
        import ray

        for member in self.members:
            ray.kill(member.handle)

    def _all(self, calls: list[Call]) -> list[Any]:
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

    def _stand(self, member: Member) -> None:
        """A new actor at the member's spot."""
        import ray

        options = member.spot.options()
        remote: Any = ray.remote(**options) if options else ray.remote
        member.handle = remote(self.kind).remote()
        member.start = self.begin(member.handle)

    def _started(self, member: Member) -> None:
        import ray

        if member.start is None:
            return
        if not ray.wait([member.start], timeout=self.start)[0]:
            raise Died(
                f"a {self.name} has not started within {self.start:g} s: "
                "is what was reserved for it still there? (`ray status`)"
            )
        self.begun(unwrap(lambda: ray.get(member.start)))
        member.start = None

    def _replace(self, member: Member, death: Exception) -> None:
        """A new actor for one that died, or the next one for its calls where memory was short."""
        import ray

        member.deaths += 1
        if member.deaths > self.retries:
            raise Died(
                f"a {self.name} died {member.deaths} times at the same call, which was repeated {self.retries} times "
                f"({reason(death)}); give it more memory, and start the run again: it goes on"
            )
        ray.kill(member.handle)
        if starved(death) and len(self.members) > 1:
            self._retire(member, death)
            return
        if starved(death):
            tell(f"a {self.name} was lost ({reason(death)}); another repeats its calls")
            time.sleep(PAUSE * member.deaths)
        self.replaced += 1
        self._stand(member)
        for call in member.calls:
            self._send(call)

    def _retire(self, member: Member, death: Exception) -> None:
        """Hand an actor's calls to the next one, whose deaths count on from its own."""
        place = self.members.index(member)
        self.members.remove(member)
        member.start = None
        heir = self.members[place % len(self.members)]
        heir.deaths = max(heir.deaths, member.deaths)
        tell(f"a {self.name} was lost ({reason(death)}); the {len(self.members)} left go on without it")
        calls, member.calls = member.calls, []
        for call in calls:
            call.member = heir
            heir.calls.append(call)
            self._send(call)
