"""Map a function over independent items: here one by one, in processes of this machine, or on Ray, with equal results.

A task may be retried, since its result depends on its item alone. Ray itself would retry a task that its memory monitor
killed for ever, beside the same neighbours. Here a task whose worker failed is retried at once, and one that ran out of
memory after all others of the call: alone, and with twice the memory reserved each time, up to that of the largest
node. The other tasks go on meanwhile.
"""

import functools
import signal
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, TypeVar

from pipelines.runs.cluster import free_memory, processes
from pipelines.runs.cluster.attach import BEAT, unwrap
from pipelines.runs.cluster.free_memory import format_gb
from pipelines.runs.cluster.worker_failures import (
    RETRIES,
    WorkerFailed,
    describe_failure,
    is_out_of_memory,
    warn,
    worker_failure_types,
)

Item = TypeVar("Item")
Result = TypeVar("Result")
REMEDY = "use fewer workers or a machine with more memory, and start it again: what was measured is kept"


def map_tasks(
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

    serial: run in this process, which must give the same results bit for bit; else in the processes of a surrounding
    `processes.process_pool`, or on Ray.
    done: called with how many items have finished (or what they cost together), at least every second where others
    work; an exception that it raises cancels the rest.
    memory: bytes that a task needs; no more tasks start than memory allows. name: what messages call an item.
    smaller: what is tried in place of an item that ran out of memory.
    Errors: those of `function`; WorkerFailed, in one line, for an item whose worker failed after RETRIES retries.
    """
    if not serial:
        pool = processes.current_pool()
        runner = processes.PoolTasks(pool, function) if pool else RayTasks(_make_interruptible(function))
        return TaskMap(runner, items, done=done, cost=cost, memory=memory, name=name, smaller=smaller).run()
    results: list[Any] = []
    finished = 0
    for item in items:
        results.append(function(item))
        finished += cost(item)
        done(finished)
    return results


def task_memory_limit(*, serial: bool) -> float:
    """Bytes that one task of `map_tasks` can have."""
    if serial:
        return free_memory.read_free_memory()
    pool = processes.current_pool()
    return pool.memory if pool else free_memory.largest_node_memory()


class RayTasks(Generic[Item]):
    """The tasks of one `TaskMap` on Ray."""

    def __init__(self, function: Callable[[Item], Any]) -> None:
        import ray

        self.remote: Any = ray.remote(num_cpus=1, max_retries=0)(function)
        self.failure_types = worker_failure_types()

    @functools.cached_property
    def largest(self) -> float:
        """Bytes that a task can have; Ray would wait for ever for more."""
        return free_memory.largest_node_memory()

    def submit(self, item: Item, memory: int) -> Any:
        return (self.remote.options(memory=memory) if memory else self.remote).remote(item)

    def wait(self, references: Collection[Any]) -> list[Any]:
        """Those that have ended, after BEAT seconds at most."""
        import ray

        return ray.wait(list(references), num_returns=1, timeout=BEAT)[0]

    def result(self, reference: Any) -> Any:
        """Errors: those of the task, and of `failure_types` where its worker failed."""
        import ray

        return unwrap(lambda: ray.get(reference))

    def cancel(self, references: Collection[Any]) -> None:
        import ray

        for reference in references:
            ray.cancel(reference)


class TaskMap(Generic[Item]):
    """One call of `map_tasks` on workers. Errors: WorkerFailed, in one line, after RETRIES retries of an item."""

    def __init__(
        self,
        runner: RayTasks[Item] | processes.PoolTasks,
        items: Sequence[Item],
        *,
        done: Callable[[int], None],
        cost: Callable[[Item], int],
        memory: Callable[[Item], int],
        name: Callable[[Item], str],
        smaller: Callable[[Item], Item],
    ) -> None:
        self.runner = runner
        self.items, self.done, self.cost, self.memory = list(items), done, cost, memory
        self.name, self.smaller = name, smaller
        self.results: list[Any] = [None] * len(items)
        self.failures, self.shortages = [0] * len(items), [0] * len(items)  # of memory
        self.pending: dict[Any, int] = {}  # index of the item by reference
        self.alone: deque[int] = deque()  # indices of items that wait until nothing else is pending
        self.finished = 0

    def run(self) -> list[Any]:
        """The results of all items, in their order."""
        try:
            for index in range(len(self.items)):
                self._submit(index)
            while self.pending or self.alone:
                if not self.pending:
                    self._submit(self.alone.popleft())
                ready = self.runner.wait(self.pending)
                if not ready:
                    self.done(self.finished)  # may stop the work by raising
                for reference in ready:
                    self._collect(reference)
        finally:
            self.runner.cancel(self.pending)
        return self.results

    def _submit(self, index: int) -> None:
        memory = self.memory(self.items[index]) << self.shortages[index]
        reference = self.runner.submit(self.items[index], int(min(memory, self.runner.largest)) if memory else 0)
        self.pending[reference] = index

    def _collect(self, reference: Any) -> None:
        index = self.pending.pop(reference)
        try:
            self.results[index] = self.runner.result(reference)
        except Exception as error:
            if not is_out_of_memory(error) and not isinstance(error, self.runner.failure_types):
                raise
            self._retry(index, error)
            return
        self.finished += self.cost(self.items[index])
        self.done(self.finished)

    def _retry(self, index: int, error: Exception) -> None:
        """Submit an item again: at once, or alone after all others where it ran out of memory."""
        self.failures[index] += 1
        name, failures, memory = self.name(self.items[index]), self.failures[index], self.memory(self.items[index])
        cause, estimate = describe_failure(error), f"; it should need {format_gb(memory)}" if memory else ""
        if failures > RETRIES:
            raise WorkerFailed(f"{name} was lost {failures} times ({cause}{estimate}); {REMEDY}") from None
        if is_out_of_memory(error):
            self.shortages[index] += 1
            self.items[index] = self.smaller(self.items[index])
            self.alone.append(index)
            warn(f"{name}: {cause}{estimate}; it is done again alone, time {failures} of {RETRIES}")
        else:
            warn(f"{name}: its worker is gone ({cause}); it is done again, time {failures} of {RETRIES}")
            self._submit(index)


def _make_interruptible(function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """`function` as a task that `ray.cancel` can end, which raises KeyboardInterrupt in SIGINT's handler.

    A process that ignores SIGINT, as a shell's background job does, starts workers that ignore it and have no handler.
    """

    @functools.wraps(function)
    def task(item: Item) -> Result:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return function(item)

    return task
