"""Processes of this machine without Ray, for work that would be done before Ray has started.

A worker is one spawned process (concurrent.futures) that runs one task at a time, so that a process that dies failed at
one known task. Tasks start in the order in which they are submitted, as far as memory allows. Each process ends when
this one does, however that ends, and an interrupt of the terminal reaches only a task that is running.
"""

import importlib
import multiprocessing
import os
import signal
import sys
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

from pipelines.runs.cluster import address, free_memory
from pipelines.runs.cluster.attach import BEAT, WORKER
from pipelines.runs.cluster.worker_failures import ProcessDied

SHORT = 300.0  # estimated seconds of one core, below which Ray's start (8 s more than that of processes) is a tenth
GRACE = 5.0  # seconds that an interrupted task has to save what it has measured

_pools: list["Pool"] = []  # of this process: the one of the innermost block


@contextmanager
def process_pool(count: int, preload: Sequence[str] = ()) -> Iterator[None]:
    """`count` processes for the block's calls of `map_tasks`; those of an outer block where there is one.

    preload: modules that each process imports when it starts, while this one goes on.
    """
    if _pools:
        yield
        return
    _pools.append(Pool(count, preload))
    try:
        yield
    finally:
        _pools.pop().close()


def current_pool() -> "Pool | None":
    """The processes of the innermost block."""
    return _pools[-1] if _pools else None


def suit_work(seconds: float) -> bool:
    """Whether processes suit work of so many core-seconds: it is short, and Ray is neither named nor running."""
    ray = sys.modules.get("ray")
    return seconds < SHORT and address.read_address() == address.LOCAL and not (ray and ray.is_initialized())


class Pool:
    """Workers, and the bytes of memory that their tasks may use together."""

    def __init__(self, count: int, preload: Sequence[str]) -> None:
        self.memory = free_memory.SHARE * free_memory.read_free_memory()
        self.workers = [Worker(preload) for _ in range(count)]

    def close(self) -> None:
        for worker in self.workers:
            worker.end()


class Worker:
    """One process, restarted for the next task after it ended. ready: resolves once it has imported `preload`."""

    def __init__(self, preload: Sequence[str]) -> None:
        self.preload, self.call = preload, None
        self._start()

    def _start(self) -> None:
        self.ended, self.context = False, _SpawnContext()
        self.executor = ProcessPoolExecutor(1, self.context, _initialize, (WORKER, self.preload))
        self.ready = self.executor.submit(os.getpid)  # an executor starts its process at its first task

    @property
    def process(self) -> BaseProcess:
        return self.context.process

    def submit(self, call: "Call") -> None:
        """Start a call, in a new process where the last one ended."""
        if self.ended:
            self._start()
        self.call, call.worker = call, self
        try:
            call.future = self.executor.submit(_run_task, call.function, call.item)
        except BrokenProcessPool as error:
            call.future = Future()
            call.future.set_exception(error)

    def describe_death(self) -> ProcessDied:
        """Why the process died. The executor's thread collects its exit code; a second wait beside it may see none."""
        self.end()
        return ProcessDied(self.process.exitcode)

    def interrupt(self) -> None:
        """Interrupt its task; a process that still imports is killed."""
        if not self.ready.done():
            self.end()
        elif self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGINT)

    def end(self) -> None:
        """Kill the process."""
        self.ended = True
        self.process.kill()
        self.executor.shutdown(wait=True, cancel_futures=True)


@dataclass(eq=False)
class Call:
    """A task, and its worker once it has started. memory: bytes that it needs."""

    function: Callable[[Any], Any]
    item: Any
    memory: int
    worker: Worker | None = None
    future: "Future[Any]" = field(default_factory=Future)


class PoolTasks:
    """The tasks of one `TaskMap` on a pool."""

    failure_types = (ProcessDied,)

    def __init__(self, pool: Pool, function: Callable[[Any], Any]) -> None:
        self.pool, self.function = pool, function
        self.largest = pool.memory
        self.queue: deque[Call] = deque()

    def submit(self, item: Any, memory: int) -> Call:
        self.queue.append(Call(self.function, item, memory))
        return self.queue[-1]

    def wait(self, calls: Collection[Call]) -> list[Call]:
        """Those of `calls` that have ended, after BEAT seconds at most."""
        self._start_waiting()
        futures.wait([call.future for call in calls if call.worker], BEAT, futures.FIRST_COMPLETED)
        return [call for call in calls if call.future.done()]

    def result(self, call: Call) -> Any:
        """Errors: those of the task, and ProcessDied where its process died."""
        worker = call.worker
        assert worker is not None
        worker.call = None
        try:
            return call.future.result()
        except BrokenProcessPool:
            raise worker.describe_death() from None

    def cancel(self, calls: Collection[Call]) -> None:
        """End the tasks that have started, by an interrupt first, and start no others."""
        self.queue.clear()
        busy = {call.worker: call.future for call in calls if call.worker and not call.future.done()}
        for worker in busy:
            worker.interrupt()
        futures.wait(busy.values(), GRACE)
        for worker, future in busy.items():
            worker.call = None
            if not future.done() or isinstance(future.exception(), BrokenProcessPool):
                worker.end()

    def _start_waiting(self) -> None:
        """Start the tasks that fit beside the running ones, and one in any case, since none needs all memory."""
        for worker in self.pool.workers:
            if worker.call is None and (call := self._next_fitting()):
                self.queue.remove(call)
                worker.submit(call)

    def _next_fitting(self) -> Call | None:
        used = [worker.call.memory for worker in self.pool.workers if worker.call]
        return next((call for call in self.queue if not used or sum(used) + call.memory <= self.pool.memory), None)


class _SpawnContext(SpawnContext):
    """A context that keeps the process that it made."""

    process: BaseProcess

    def Process(self, *args: Any, **options: Any) -> BaseProcess:  # type: ignore[override]
        self.process = SpawnContext.Process(*args, **options)
        return self.process


def _initialize(environment: Mapping[str, str], preload: Sequence[str]) -> None:
    """Set a new process up, before it imports the libraries that read its environment."""
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


def _run_task(function: Callable[[Any], Any], item: Any) -> Any:
    signal.signal(signal.SIGINT, _raise_interrupt)
    try:
        return function(item)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    """Raise once, so that what a task saves on its way out is whole: the parent repeats a terminal's interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt
