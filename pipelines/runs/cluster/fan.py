"""Independent tasks, one by one here, or many in processes of this machine or on Ray, with the same results.

Each may be done again, since its result is of its item alone. Ray itself would repeat a task that its memory monitor
killed for ever, beside the same neighbours. Here a task whose process is lost is done again at once, and one for which
memory was short once no other of this call is left: alone, and with twice the memory reserved each time, as far as the
largest node has it. The other tasks go on meanwhile.
"""

import functools
import signal
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, TypeVar

from pipelines.runs.cluster import processes, room
from pipelines.runs.cluster.attach import BEAT, unwrap
from pipelines.runs.cluster.deaths import RETRIES, Died, lost, reason, starved, tell

Item = TypeVar("Item")
Result = TypeVar("Result")
MORE = "use fewer workers or a machine with more memory, and start it again: what was measured is kept"


def fan_out(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    serial: bool,
    done: Callable[[int], None] = lambda count: None,
    cost: Callable[[Item], int] = lambda item: 1,
    memory: Callable[[Item], int] = lambda item: 0,
    name: Callable[[Item], str] = str,
    smaller: Callable[[Item], Item] = lambda item: item,
) -> list[Result]:
    """function(item) for every item, in the order of `items`; the first error propagates.

    serial runs in this process, and must give the same results bit for bit; else the processes of a surrounding
    `processes.processes` do the work, or Ray. `done` hears how many have finished (or what they cost together), at
    least every second where others work; an exception it raises cancels the rest. memory: bytes that a task will hold,
    of which no more is started than there is. An item whose process is lost is done again, as `Fan` has it; name: what
    it is called then; smaller: what is done in its place where memory was short.
    """
    if not serial:
        pool = processes.current()
        where = processes.Calls(pool, function) if pool else OnRay(_interruptible(function))
        return Fan(where, items, done=done, cost=cost, memory=memory, name=name, smaller=smaller).results()
    results: list[Any] = []
    finished = 0
    for item in items:
        results.append(function(item))
        finished += cost(item)
        done(finished)
    return results


def capacity(*, serial: bool) -> float:
    """Bytes that one task of `fan_out` can have."""
    if serial:
        return room.here()
    pool = processes.current()
    return pool.room if pool else room.largest()


class OnRay(Generic[Item]):
    """The tasks of one `Fan` on Ray."""

    def __init__(self, function: Callable[[Item], Any]) -> None:
        import ray

        self.remote: Any = ray.remote(num_cpus=1, max_retries=0)(function)
        self.lost = lost()

    @functools.cached_property
    def largest(self) -> float:
        """Bytes that a task can have; more would be waited for for ever."""
        return room.largest()

    def submit(self, item: Item, memory: int) -> Any:
        return (self.remote.options(memory=memory) if memory else self.remote).remote(item)

    def wait(self, references: Collection[Any]) -> list[Any]:
        """Those that have ended, after BEAT seconds at most."""
        import ray

        return ray.wait(list(references), num_returns=1, timeout=BEAT)[0]

    def result(self, reference: Any) -> Any:
        """Errors: those of the task, and of `lost` where its process died."""
        import ray

        return unwrap(lambda: ray.get(reference))

    def cancel(self, references: Collection[Any]) -> None:
        import ray

        for reference in references:
            ray.cancel(reference)


class Fan(Generic[Item]):
    """The tasks of one call, as `fan_out` has them. Errors: Died, in one line, after RETRIES repetitions."""

    def __init__(
        self,
        where: OnRay[Item] | processes.Calls,
        items: Sequence[Item],
        *,
        done: Callable[[int], None],
        cost: Callable[[Item], int],
        memory: Callable[[Item], int],
        name: Callable[[Item], str],
        smaller: Callable[[Item], Item],
    ) -> None:
        self.where = where
        self.items, self.done, self.cost, self.memory = list(items), done, cost, memory
        self.name, self.smaller = name, smaller
        self.found: list[Any] = [None] * len(items)
        self.deaths, self.starved = [0] * len(items), [0] * len(items)
        self.pending: dict[Any, int] = {}  # places of items by references
        self.alone: deque[int] = deque()  # places of items that wait until nothing else is pending
        self.finished = 0

    def results(self) -> list[Any]:
        """Of all items, in their order."""
        try:
            for place in range(len(self.items)):
                self._submit(place)
            while self.pending or self.alone:
                if not self.pending:
                    self._submit(self.alone.popleft())
                ready = self.where.wait(self.pending)
                if not ready:
                    self.done(self.finished)  # whoever listens may stop the work by raising
                for reference in ready:
                    self._collect(reference)
        finally:
            self.where.cancel(self.pending)
        return self.found

    def _submit(self, place: int) -> None:
        asked = self.memory(self.items[place]) << self.starved[place]
        reference = self.where.submit(self.items[place], int(min(asked, self.where.largest)) if asked else 0)
        self.pending[reference] = place

    def _collect(self, reference: Any) -> None:
        place = self.pending.pop(reference)
        try:
            self.found[place] = self.where.result(reference)
        except Exception as error:
            if not starved(error) and not isinstance(error, self.where.lost):
                raise
            self._again(place, error)
            return
        self.finished += self.cost(self.items[place])
        self.done(self.finished)

    def _again(self, place: int, death: Exception) -> None:
        """Do an item again, now or when it can be alone."""
        self.deaths[place] += 1
        name, deaths, needs = self.name(self.items[place]), self.deaths[place], self.memory(self.items[place])
        estimate = f"; it should need {room.gb(needs)}" if needs else ""
        if deaths > RETRIES:
            raise Died(f"{name} was lost {deaths} times ({reason(death)}{estimate}); {MORE}") from None
        if starved(death):
            self.starved[place] += 1
            self.items[place] = self.smaller(self.items[place])
            self.alone.append(place)
            tell(f"{name}: {reason(death)}{estimate}; it is done again alone, time {deaths} of {RETRIES}")
        else:
            tell(f"{name}: its worker is gone ({reason(death)}); it is done again, time {deaths} of {RETRIES}")
            self._submit(place)


def _interruptible(function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """`function` as a task that `ray.cancel` can end, which it does by KeyboardInterrupt from SIGINT's handler.

    A process that ignores SIGINT, as a shell's background job does, starts workers that ignore it and have no handler.
    """

    @functools.wraps(function)
    def task(item: Item) -> Result:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return function(item)

    return task
