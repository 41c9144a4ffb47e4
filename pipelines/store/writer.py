"""Writes snapshots asynchronously: `put` copies the tensors, and a thread commits the copies in order.

At most QUEUE copies wait, so a slow store slows training down instead of filling the memory. A failed commit stays in
the queue and is retried by the next call, which raises if it fails again: no snapshot is skipped, and none is committed
before its parent.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

QUEUE = 2
Commit = Callable[[int, "dict[str, Tensor]", int | None], object]  # step, tensors, parent


class Writer:
    """Passes snapshots to `commit`, one after the other, in a thread."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._waiting: deque[tuple[int, dict[str, Tensor], int | None]] = deque()
        self._passes: deque[Future[None]] = deque()
        self._clock = _Clock()
        # The thread must not reference this writer: the thread ends when the writer is garbage collected.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots", initializer=self._clock.begin)

    def put(self, step: int, tensors: "dict[str, Tensor]", parent: int | None) -> None:
        """Copy a snapshot and queue it. Errors: those of `commit`, for an earlier snapshot."""
        self._settle(QUEUE - 1)
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        self._waiting.append((step, copies, parent))
        self._passes.append(self._thread.submit(self._pass))

    def flush(self) -> None:
        """Wait until every snapshot is committed. Errors: as `put`."""
        self._settle(0)

    @property
    def cpu(self) -> float:
        """CPU seconds of the thread so far; 0 on systems that do not report it."""
        return 0.0 if self._clock.number is None else time.clock_gettime(self._clock.number)

    def _settle(self, most: int) -> None:
        """Wait until at most `most` copies are queued. Errors: those of commits since the last call."""
        while self._passes and (len(self._waiting) > most or self._passes[0].done()):
            self._passes.popleft().result()
        while len(self._waiting) > most:  # retry after a failed pass
            self._thread.submit(self._pass).result()

    def _pass(self) -> None:
        """Commit all queued snapshots."""
        while self._waiting:
            self._commit(*self._waiting[0])
            self._waiting.popleft()


class _Clock:
    """The CPU clock of the thread that called `begin`. number: the system's clock id."""

    def __init__(self) -> None:
        self.number: int | None = None

    def begin(self) -> None:
        if hasattr(time, "pthread_getcpuclockid"):
            self.number = time.pthread_getcpuclockid(threading.get_ident())
