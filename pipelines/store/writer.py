"""Snapshots written beside training: a copy is taken, and a thread commits the copies in order while training goes on.

At most QUEUE copies wait, so a store that is slower than training slows it down and never fills the memory. What
failed to be written is kept and tried again by the next call, which raises where it fails again: nothing is skipped,
and no snapshot is committed before its parent.
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
    """Hands snapshots to `commit`, one after the other."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._waiting: deque[tuple[int, dict[str, Tensor], int | None]] = deque()
        self._passes: deque[Future[None]] = deque()
        self._clock = _Clock()
        # The thread holds what it begins with, so nothing of this writer, whose end is the thread's.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots", initializer=self._clock.begin)

    def put(self, step: int, tensors: "dict[str, Tensor]", parent: int | None) -> None:
        """Take a copy to be committed. Errors: those of `commit`, of this snapshot or of one before it."""
        self._settle(QUEUE - 1)
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        self._waiting.append((step, copies, parent))
        self._passes.append(self._thread.submit(self._pass))

    def flush(self) -> None:
        """Return when everything is committed. Errors: as `put`."""
        self._settle(0)

    @property
    def cpu(self) -> float:
        """CPU seconds of the thread so far; 0 where the system does not tell."""
        return 0.0 if self._clock.number is None else time.clock_gettime(self._clock.number)

    def _settle(self, most: int) -> None:
        """Wait until at most that many copies are left, and raise what went wrong since the last call."""
        while self._passes and (len(self._waiting) > most or self._passes[0].done()):
            self._passes.popleft().result()
        while len(self._waiting) > most:  # left by a pass that failed
            self._thread.submit(self._pass).result()

    def _pass(self) -> None:
        """Commit all that waits."""
        while self._waiting:
            self._commit(*self._waiting[0])
            self._waiting.popleft()


class _Clock:
    """The CPU clock of the thread that began it, by the system's number."""

    def __init__(self) -> None:
        self.number: int | None = None

    def begin(self) -> None:
        if hasattr(time, "pthread_getcpuclockid"):
            self.number = time.pthread_getcpuclockid(threading.get_ident())
