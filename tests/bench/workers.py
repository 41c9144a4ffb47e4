"""Measuring processes of one thread each, which have done their imports."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

from tests.bench import engine
from tests.bench.checkpoints import refs

STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
rest = 0  # bytes that this process held before it measured


@contextmanager
def open_workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `count` fresh processes, all of them ready, ended with the block.

    Errors: BrokenProcessPool if a process dies (multiprocessing's own pool would wait for its result for ever).
    """
    context = get_context("spawn")
    with ProcessPoolExecutor(count, context, _start, (context.Barrier(count),)) as pool:
        # Each call starts a process, since no process is idle before all of them have passed the barrier.
        for ready in [pool.submit(growth) for _ in range(count)]:
            ready.result()
        yield pool


def _start(ready: Barrier) -> None:
    global rest
    torch.set_num_threads(1)
    rest = _memory("VmRSS")
    # The high-water mark of the imports would hide what measuring adds. Containers may refuse, and then it does.
    try:
        PEAK.write_text("5")
    except OSError:
        rest = max(rest, _memory("VmHWM"))
    ready.wait()


def measure(folders: tuple[Path, Path], name: str, *, k: int, parts: Sequence[str]) -> None:
    """Read W0 and W_t of one tensor by byte range, and measure it with its base, as a task of the scheduler would."""
    base, snapshot = (refs(folder)[name] for folder in folders)
    engine.diagnose(engine.prepare(base.read(), k, tuple(parts)), snapshot.read())


def growth() -> int:
    """Bytes by which this process grew at most since its imports; 0 where the system does not tell."""
    return _memory("VmHWM") - rest


def race(count: int, names: Sequence[str], folders: tuple[Path, Path], k: int, parts: Sequence[str]) -> float:
    """Wall seconds in which `count` workers measure the matrices of a queue; starting them is not in the time."""
    with open_workers(count) as pool:
        begun = time.monotonic()
        list(pool.map(partial(measure, folders, k=k, parts=parts), names))
        return time.monotonic() - begun


def _memory(field: str) -> int:
    """VmRSS or VmHWM (the highest VmRSS so far) of this process in bytes; 0 where the system does not tell."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field)), 0)
