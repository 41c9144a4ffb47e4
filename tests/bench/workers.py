"""Measuring processes of one thread each, and a queue of matrices before them."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.runs.cluster.attach import WORKER
from tests.bench.load import Load


class Worker:
    """The door to one process of `worker.py`, which has done its imports."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.answer()

    def measure(self, name: str) -> dict[str, Any]:
        """Measure one tensor: {cpu, values}."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        return self.answer()

    def growth(self) -> int:
        """End the process; bytes its memory had grown at most since its imports."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.answer()["growth"]

    def answer(self) -> dict[str, Any]:
        """Errors: RuntimeError when the process ended without one; what it wrote is on this one's stderr."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker of the bench ended with exit code {self.process.wait()}")
        return json.loads(line)


@contextmanager
def worker(folders: tuple[Path, Path], k: int, parts: Sequence[str]) -> Iterator[Worker]:
    """One process over (base, step), ended with the block."""
    command = [sys.executable, "-m", "tests.bench.worker", *map(str, folders), str(k), *parts]
    environment = os.environ | WORKER
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        try:
            yield Worker(process)
        finally:
            process.kill()


@dataclass(frozen=True)
class Race:
    """wall: seconds from the first matrix to the last; cpu: of the workers; others: cores busy with something else."""

    wall: float
    cpu: float
    others: float | None


def race(count: int, names: Sequence[str], folders: tuple[Path, Path], k: int, parts: Sequence[str]) -> Race:
    """`count` workers share a queue of matrices, in its order; starting them is not in the time."""
    queue, answers = deque(names), []

    def serve(mine: Worker) -> None:
        while queue:
            try:
                name = queue.popleft()
            except IndexError:
                return
            answers.append(mine.measure(name))

    with ExitStack() as stack:
        workers = [stack.enter_context(worker(folders, k, parts)) for _ in range(count)]
        threads = [threading.Thread(target=serve, args=(mine,)) for mine in workers]
        load, begun = Load(), time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.monotonic() - begun
        cpu = sum(answer["cpu"] for answer in answers)
        if len(answers) < len(names):
            raise RuntimeError(f"workers answered for {len(answers)} of {len(names)} matrices")
        return Race(wall, cpu, load.others(cpu))
