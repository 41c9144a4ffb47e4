"""Processes of this machine without Ray, for work that would be done before Ray has started.

A lane is one spawned process (concurrent.futures) that does one task at a time, so a process that dies is the death of
one known task. Tasks start in the order they are submitted, as far as the memory they ask for is there. Each process
ends when this one does, however that ends, and an interrupt of the terminal reaches only a task that is being done.
"""

import importlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from pipelines.runs.cluster import address, room
from pipelines.runs.cluster.attach import BEAT, WORKER
from pipelines.runs.cluster.deaths import Gone

SHORT = 300.0  # estimated seconds of one core, below which Ray's start (8 s more than that of processes) is a tenth
GRACE = 5.0  # seconds that an interrupted task has to keep what it has measured

_pools: list["Pool"] = []  # of this process: the one of the innermost block


@contextmanager
def processes(count: int, preload: Sequence[str] = ()) -> Iterator[None]:
    """`count` processes for the block's calls of `fan_out`; those of an outer block where there is one.

    preload: modules that each imports when it starts, beside what this process does meanwhile.
    """
    if _pools:
        yield
        return
    _pools.append(Pool(count, preload))
    try:
        yield
    finally:
        _pools.pop().close()


def current() -> "Pool | None":
    """The processes of the innermost block."""
    return _pools[-1] if _pools else None


def suit(seconds: float) -> bool:
    """Whether work of so many core-seconds is for processes: short, no cluster is named, and no Ray is joined yet."""
    import sys

    ray = sys.modules.get("ray")
    return seconds < SHORT and address.given() == address.LOCAL and not (ray and ray.is_initialized())


class Pool:
    """Lanes, and the bytes of memory that their tasks may hold together."""

    def __init__(self, count: int, preload: Sequence[str]) -> None:
        self.room = room.SHARE * room.here()
        self.lanes = [Lane(preload) for _ in range(count)]

    def close(self) -> None:
        for lane in self.lanes:
            lane.end()


class Lane:
    """One process, started again for the next task after it is gone. over: it was ended. ready: its imports."""

    def __init__(self, preload: Sequence[str]) -> None:
        self.preload, self.call = preload, None
        self._start()

    def _start(self) -> None:
        self.over, self.context = False, _Spawn()
        self.executor = ProcessPoolExecutor(1, self.context, _begin, (WORKER, self.preload))
        self.ready = self.executor.submit(os.getpid)  # an executor starts its process at its first task

    @property
    def process(self) -> BaseProcess:
        return self.context.spawned

    def do(self, call: "Call") -> None:
        """Start a call, in a new process where the last one is gone."""
        if self.over:
            self._start()
        self.call, call.lane = call, self
        try:
            call.future = self.executor.submit(_do, call.function, call.item)
        except BrokenProcessPool as error:
            call.future = Future()
            call.future.set_exception(error)

    def death(self) -> Gone:
        """Why the process is gone."""
        self.process.join(GRACE)
        code = self.process.exitcode
        self.end()
        return Gone(code)

    def interrupt(self) -> None:
        """Interrupt its task; what still imports is ended."""
        if not self.ready.done():
            self.end()
        elif self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGINT)

    def end(self) -> None:
        """End the process whatever it does."""
        self.over = True
        self.process.kill()
        self.executor.shutdown(wait=True, cancel_futures=True)


@dataclass(eq=False)
class Call:
    """A task, and where it is done once it has begun. memory: bytes that it will hold."""

    function: Callable[[Any], Any]
    item: Any
    memory: int
    lane: Lane | None = None
    future: "Future[Any]" = field(default_factory=Future)


class Calls:
    """The tasks of one `Fan` on a pool."""

    lost = (Gone,)

    def __init__(self, pool: Pool, function: Callable[[Any], Any]) -> None:
        self.pool, self.function = pool, function
        self.largest = pool.room
        self.queue: deque[Call] = deque()

    def submit(self, item: Any, memory: int) -> Call:
        self.queue.append(Call(self.function, item, memory))
        return self.queue[-1]

    def wait(self, calls: Collection[Call]) -> list[Call]:
        """Those of `calls` that have ended, after BEAT seconds at most."""
        self._begin()
        futures.wait([call.future for call in calls if call.lane], BEAT, futures.FIRST_COMPLETED)
        return [call for call in calls if call.future.done()]

    def result(self, call: Call) -> Any:
        """Errors: those of the task, and Gone where its process died."""
        lane = call.lane
        assert lane is not None
        lane.call = None
        try:
            return call.future.result()
        except BrokenProcessPool:
            raise lane.death() from None

    def cancel(self, calls: Collection[Call]) -> None:
        """End what has begun, by an interrupt first, and begin nothing more."""
        self.queue.clear()
        busy = {call.lane: call.future for call in calls if call.lane and not call.future.done()}
        for lane in busy:
            lane.interrupt()
        futures.wait(busy.values(), GRACE)
        for lane, future in busy.items():
            lane.call = None
            if not future.done() or isinstance(future.exception(), BrokenProcessPool):
                lane.end()

    def _begin(self) -> None:
        """Begin what fits beside what is being done: one task at the least, since none is larger than all memory."""
        for lane in self.pool.lanes:
            if lane.call is None and (call := self._next()):
                self.queue.remove(call)
                lane.do(call)

    def _next(self) -> Call | None:
        held = [lane.call.memory for lane in self.pool.lanes if lane.call]
        return next((call for call in self.queue if not held or sum(held) + call.memory <= self.pool.room), None)


class _Spawn(SpawnContext):
    """A context that knows the process that it made."""

    spawned: BaseProcess

    def Process(self, *args: Any, **options: Any) -> BaseProcess:  # type: ignore[override]
        self.spawned = SpawnContext.Process(*args, **options)
        return self.spawned


def _begin(environment: Mapping[str, str], preload: Sequence[str]) -> None:
    """What a process does first: its settings, before the libraries that read them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until there is a task
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)
    for name in preload:
        importlib.import_module(name)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(function: Callable[[Any], Any], item: Any) -> Any:
    signal.signal(signal.SIGINT, _interrupted)
    try:
        return function(item)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Once, so that what is kept on the way out is kept whole: a terminal's interrupt comes again from the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt
