"""Ray: attach to RAY_ADDRESS or start a private local cluster, lend actors, attend to calls.

`ray.init()` without an address would join any cluster found on the host, so the address is always explicit.
`ray stop` is host-wide and never called: shutting down ends what this process started.
"""

import logging
import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from opd_ops.outside import exported
from pipelines.runs.cluster import address, room, token
from pipelines.runs.cluster.deaths import Died

Result = TypeVar("Result")

THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_idle: dict[type, list[Any]] = {}  # CPU actors of this session that wait for their next block
_lock = threading.Lock()
_TOO_LONG = re.compile(r"AF_UNIX path length cannot exceed (\d+) bytes: (\S.*)")
BEAT = 1.0  # seconds between two chances to stop
WORKER = THREADS | {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}


@contextmanager
def cluster(cpus: int | None = None) -> Iterator[None]:
    """A Ray session for the block; joins the one this process already has. What it starts listens on loopback.

    Errors: ValueError as `address.require` has it, and where TMPDIR cannot take Ray's sockets; Died where none starts.
    """
    where = address.given()
    address.bind(where)
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # By default idle workers past one a core end after a second, and each new one spends three on importing torch.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
    import ray

    if ray.is_initialized():
        yield
        return
    with _private(cpus) if where == address.LOCAL else _joined(where):
        try:
            yield
        finally:
            _idle.clear()
            ray.shutdown()


@contextmanager
def _private(cpus: int | None) -> Iterator[None]:
    """A Ray of this process's own, which asks for a token."""
    own: dict[str, Any] = {"num_cpus": cpus or os.cpu_count()}
    own |= {"include_dashboard": False, "dashboard_host": address.LOOPBACK}
    # Ray's own share leaves a third of what is free to its object store, where little is kept here.
    own |= {"_memory": int(room.SHARE * free)} if math.isfinite(free := room.here()) else {}
    room.require_addresses()
    with token.required():
        try:
            _init(address.LOCAL, **own)
        except Exception as error:
            raise _unstarted(error) from error
        yield


@contextmanager
def _joined(where: str) -> Iterator[None]:
    """The cluster at an address, with the user's own setting of its token."""
    address.require(where)
    try:
        _init(where)
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(f"RAY_ADDRESS {where} cannot be joined ({reason}); {address.REMEDY}") from error
    yield


def _init(where: str, **own: Any) -> None:
    import ray

    ray.init(
        address=where,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": WORKER | exported()},
        **own,
    )


def _unstarted(error: Exception) -> Exception:
    """What is said where a private Ray does not start."""
    reason = " ".join(str(error).split()) or type(error).__name__
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "RAY_TMPDIR")
    folder = os.environ.get(name) or "/tmp"
    if too_long := _TOO_LONG.search(reason):
        most = len(os.fsencode(folder)) + int(too_long[1]) - len(os.fsencode(too_long[2])) - 2  # of a longer process id
        return ValueError(
            f"{name} {folder} is too long for the sockets of Ray, which lie below it; set RAY_TMPDIR to a folder whose "
            f"path has at most {most} letters, such as /tmp"
        )
    if isinstance(error, OSError) and error.filename:
        why = f"{error.filename}: {error.strerror}"
        return ValueError(f"Ray cannot write below {name} {folder} ({why}); set RAY_TMPDIR to a folder that it can")
    logs = f"{folder}/ray/session_latest/logs"
    return Died(f"Ray did not start on this machine ({reason}); its logs lie in {logs}, and the same command goes on")


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


def described() -> str:
    """What the Ray of this process has: nodes, CPUs, GPUs, memory in GiB, and its address."""
    import ray

    has = ray.cluster_resources()
    nodes = sum(name.startswith("node:") and name != "node:__internal_head__" for name in has)
    return (
        f"{nodes} node{'s' * (nodes != 1)}, {has.get('CPU', 0):g} CPUs, {has.get('GPU', 0):g} GPUs, "
        f"{has.get('memory', 0) / 2**30:.1f} GiB for tasks, at {ray.get_runtime_context().gcs_address}"
    )


def warm(kind: type) -> None:
    """Start a CPU actor of class `kind` now, for the session's next block of `actor`."""
    import ray

    with _lock:
        if not _idle.get(kind):
            remote: Any = ray.remote
            _idle.setdefault(kind, []).append(remote(kind).remote())


def release() -> None:
    """End the actors that wait for their next block, for the memory that they hold."""
    import ray

    with _lock:
        waiting = [handle for handles in _idle.values() for handle in handles]
        _idle.clear()
    for handle in waiting:
        ray.kill(handle)


def one_thread() -> None:
    """Give this process the threads of a worker, since another number of them gives other roundings.

    torch is told. OpenBLAS reads the environment when scipy loads it, so a process that did so before keeps its own.
    """
    import torch

    os.environ.update(THREADS)
    torch.set_num_threads(1)


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
