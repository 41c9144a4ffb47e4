"""Two writers on one name, and two on one run, many times over on one backend: one wins, and nothing mixes.

    python -m tests.chaos.races 1000            and a fifth as many of `tests.chaos.measuring`

Files and S3 are raced by two processes, memory by two threads, since no other process has it. `create` writes bytes
that differ; `equal` commits the same weights to one run, where both must go on with one digest; `different` commits
other weights, where one must go on and the other stop with one line. After each race what is stored is compared with
what its winner wrote, bit for bit.
"""

import multiprocessing
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.store.objects import Store

if TYPE_CHECKING:
    from torch import Tensor

WRITERS, STEP = 2, 7
PATIENCE = 120  # seconds until a writer that waits for the other gives up
KINDS = ("create", "equal", "different")
_barrier: Any = None  # in a process of its own, the one that all wait at


@dataclass(frozen=True)
class Row:
    """What came of `races` races. right: races that ended as they must; mixed: those whose store holds anything but one
    writer's bytes."""

    backend: str
    kind: str
    races: int
    right: int
    mixed: int
    seconds: float

    @property
    def clean(self) -> bool:
        return self.right == self.races and not self.mixed


class Writers:
    """Processes, or for a store in memory threads, that race as often as they are asked to."""

    def __init__(self, count: int = WRITERS) -> None:
        self.count = count

    def __enter__(self) -> "Writers":
        spawn = multiprocessing.get_context("spawn")
        self._threads = ThreadPoolExecutor(self.count)
        self._processes = ProcessPoolExecutor(self.count, spawn, _prepare, (spawn.Barrier(self.count),))
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.shutdown()
        self._threads.shutdown()

    def race(self, store: Store, kind: str, races: int) -> Row:
        """Race `races` times in `store`, which the environment of this process opens."""
        began, place = time.monotonic(), f"{kind}-{uuid.uuid4().hex[:8]}"
        outcomes = self.together(store, _write, kind, place, races)
        check = _created if kind == "create" else _committed
        found = [check(store, kind, place, race, said) for race, said in enumerate(outcomes)]
        right, mixed = sum(right for right, _ in found), sum(mixed for _, mixed in found)
        return Row(store.uri.partition("://")[0], kind, races, right, mixed, time.monotonic() - began)

    def together(self, store: Store, write: Callable[..., list[str]], *arguments: Any) -> list[tuple[str, ...]]:
        """What all writers said of each race: `write(start, store, *arguments, writer)` runs in each, at once.

        start() waits for the others.
        """
        memory = store.uri.startswith("memory://")
        barrier = threading.Barrier(self.count) if memory else None
        environment = {} if memory else {name: v for name, v in os.environ.items() if name.startswith("AWS_")}
        pool = self._threads if memory else self._processes
        said = [
            pool.submit(_begin, barrier, environment, write, store, *arguments, writer) for writer in range(self.count)
        ]
        return list(zip(*(future.result() for future in said), strict=True))


def payload(race: int, writer: int) -> bytes:
    return bytes([writer + 1]) * 20_000 + str(race).encode()


def weights(seed: int) -> "dict[str, Tensor]":
    import torch

    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(6, 5, generator=generator) for name in ("a.weight", "b.weight")}


def _prepare(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _begin(
    barrier: threading.Barrier | None, environment: dict[str, str], write: Callable[..., list[str]], *arguments: Any
) -> list[str]:
    os.environ.update(environment)
    return write(lambda: (barrier or _barrier).wait(PATIENCE), *arguments)


def _write(start: Callable[[], object], store: Store, kind: str, place: str, races: int, writer: int) -> list[str]:
    """What one writer said of each race: `won`, and the digest that it goes on with; or the error."""
    attempt: Callable[[int], str]
    if kind == "create":
        attempt = lambda race: store.create(f"{place}/{race}", payload(race, writer)) or "won"
    else:
        from pipelines.store.trajectory import Trajectory

        mine = weights(writer if kind == "different" else 0)
        attempt = lambda race: f"won {Trajectory(store, place, race).commit(STEP, mine, None)}"
    said = []
    store.exists(place)  # connected before the first race
    for race in range(races):
        start()
        try:
            said.append(attempt(race))
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def _created(store: Store, kind: str, place: str, race: int, said: tuple[str, ...]) -> tuple[bool, bool]:
    stored = store.read(f"{place}/{race}")
    writers = [writer for writer in range(WRITERS) if stored == payload(race, writer)]
    lost = f"Taken: {store.uri}/{place}/{race} exists already"
    right = len(writers) == 1 and all(s == ("won" if w in writers else lost) for w, s in enumerate(said))
    return right, not writers


def _committed(store: Store, kind: str, place: str, race: int, said: tuple[str, ...]) -> tuple[bool, bool]:
    import torch

    from pipelines.store.trajectory import Trajectory

    run = Trajectory(store, place, race)
    stored = {name: ref.read() for name, ref in run.refs(STEP).items()}
    seeds = range(WRITERS) if kind == "different" else [0] * WRITERS
    writers = [w for w, seed in enumerate(seeds) if all(torch.equal(stored[n], t) for n, t in weights(seed).items())]
    won = [w for w, s in enumerate(said) if s == f"won {run.digest(STEP)}"]
    stopped = [
        s for s in said if s.startswith(f"ValueError: {run.prefix}/step-") and "other weights" in s and "\n" not in s
    ]
    one = 1 if kind == "different" else WRITERS
    right = won == writers and len(won) == one and len(stopped) == WRITERS - one
    return right, not writers or run.verify(STEP) != [] or set(run.store.list(run.prefix)) != {f"step-{STEP:08d}"}


def main(arguments: list[str]) -> int:
    """Every kind on every backend; prints a table, returns 1 where a race was not clean."""
    from tests.chaos import measuring
    from tests.pipelines import seaweed

    races = int(arguments[0]) if arguments else 1000
    print(" | ".join(field.name for field in fields(Row)))
    clean = True
    with tempfile.TemporaryDirectory() as folder, seaweed.running() as server, Writers() as two, Writers(3) as three:
        os.environ.update(server.environment)
        for uri in (f"file://{folder}", "memory://races", f"s3://{seaweed.BUCKET}/races"):
            store = Store(uri)
            rows = [partial(two.race, store, kind, races) for kind in KINDS]
            rows += [
                partial(measuring.race, three if kind == "three" else two, store, kind, -(-races // 5))
                for kind in measuring.KINDS
                if kind != "watch" or not uri.startswith("memory://")  # whose threads share one terminal
            ]
            for race in rows:
                row = race()
                clean &= row.clean
                print(" | ".join(f"{v:.1f}" if isinstance(v, float) else str(v) for v in astuple(row)), flush=True)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
