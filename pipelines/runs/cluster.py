"""Ray: attach to RAY_ADDRESS or start a private local cluster, lend actors, fan tasks out with a serial twin.

`ray.init()` without an address would join any cluster found on the host, so the address is always explicit.
`ray stop` is host-wide and never called: shutting down ends what this process started.
"""

import functools
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_idle: dict[type, list[Any]] = {}  # CPU actors of this session that wait for their next block
_lock = threading.Lock()
BEAT = 1.0  # seconds between two chances to stop
WORKER = THREADS | {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}


@contextmanager
def cluster(cpus: int | None = None) -> Iterator[None]:
    """A Ray session for the block; joins the one this process already has."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # By default idle workers past one a core end after a second, and each new one spends three on importing torch.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    own = {} if address != "local" else {"num_cpus": cpus or os.cpu_count(), "include_dashboard": False}
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": WORKER},
        **own,  # type: ignore[arg-type]
    )
    try:
        yield
    finally:
        _idle.clear()
        ray.shutdown()


@contextmanager
def actor(kind: type, options: Mapping[str, Any]) -> Iterator[Any]:
    """An actor of class `kind` for the block; it is the caller's alone, and is ended when the block fails.

    A new process imports torch and transformers for five seconds, so an actor without options is kept for the session's
    next block; one that holds a place or GPUs is ended. Ray's default is used for CPUs: one to be placed, none held
    afterwards.
    """
    import ray

    # Naming any resource, num_gpus=0 too, would make the actor hold its CPU for as long as it lives.
    remote: Any = ray.remote(**options) if options else ray.remote
    with _lock:
        idle = _idle.setdefault(kind, [])
        handle: Any = idle.pop() if idle and not options else remote(kind).remote()
    try:
        yield handle
    except BaseException:
        ray.kill(handle)
        raise
    if options:
        ray.kill(handle)
        return
    with _lock:
        _idle.setdefault(kind, []).append(handle)


def warm(kind: type) -> None:
    """Start a CPU actor of class `kind` now, for the session's next block of `actor`."""
    import ray

    with _lock:
        if not _idle.get(kind):
            remote: Any = ray.remote
            _idle.setdefault(kind, []).append(remote(kind).remote())


def one_thread() -> None:
    """Give this process the threads of a worker, since another number of them gives other roundings.

    torch is told. OpenBLAS reads the environment when scipy loads it, so a process that did so before keeps its own.
    """
    import torch

    os.environ.update(THREADS)
    torch.set_num_threads(1)


def fan_out(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    serial: bool,
    done: Callable[[int], None] = lambda count: None,
    cost: Callable[[Item], int] = lambda item: 1,
) -> list[Result]:
    """function(item) for every item, in the order of `items`; the first error propagates.

    serial runs in this process, and must give the same results bit for bit. `done` hears how many have finished (or
    what they cost together), at least every second on Ray; an exception it raises cancels the rest.
    """
    results: list[Any] = [None] * len(items)
    finished = 0
    if serial:
        for index, item in enumerate(items):
            results[index] = function(item)
            finished += cost(item)
            done(finished)
        return results
    import ray

    remote = ray.remote(num_cpus=1, max_retries=3)(_interruptible(function))
    pending = {remote.remote(item): index for index, item in enumerate(items)}
    try:
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=BEAT)
            if not ready:
                done(finished)  # whoever listens may stop the work by raising
            for reference in ready:
                index = pending.pop(reference)
                results[index] = unwrap(lambda reference=reference: ray.get(reference))
                finished += cost(items[index])
                done(finished)
    finally:
        for reference in pending:
            ray.cancel(reference)
    return results


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


def attend(reference: Any, beat: Callable[[], None]) -> Any:
    """The result of a Ray call, calling `beat` every second while it runs; the call's own exception propagates."""
    import ray

    while not ray.wait([reference], timeout=BEAT)[0]:
        beat()
    return unwrap(lambda: ray.get(reference))


def unwrap(get: Callable[[], Result]) -> Result:
    """`get()`, raising a task's own exception instead of Ray's wrapper around it."""
    from ray.exceptions import RayTaskError

    try:
        return get()
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
