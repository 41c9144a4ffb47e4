"""Ray: connect to RAY_ADDRESS or start a private local cluster, reuse actors, wait for calls.

`ray.init()` without an address would join any cluster found on the host, so the address is always explicit.
`ray stop` is host-wide and never called: `ray.shutdown()` ends what this process started.
"""

import logging
import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from opd_ops.outside import exported_variables
from pipelines.runs.cluster import address, free_memory, token
from pipelines.runs.cluster.worker_failures import WorkerFailed

Result = TypeVar("Result")

THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_idle: dict[type, list[Any]] = {}  # CPU actors of this session that can be used again
_lock = threading.Lock()
_TOO_LONG = re.compile(r"AF_UNIX path length cannot exceed (\d+) bytes: (\S.*)")
BEAT = 1.0  # seconds between two calls of a listener, which may stop the work
WORKER = THREADS | {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}


@contextmanager
def cluster(cpus: int | None = None) -> Iterator[None]:
    """A Ray session for the block; uses the one of this process if there is one. A private Ray listens on loopback.

    Errors: ValueError of `address.require_ray`, and where TMPDIR cannot hold Ray's sockets; WorkerFailed where Ray does
    not start.
    """
    where = address.read_address()
    address.bind_to_loopback(where)
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # By default idle workers past one a core end after a second, and each new one spends three on importing torch.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
    import ray

    if ray.is_initialized():
        yield
        return
    with _start_private(cpus) if where == address.LOCAL else _join(where):
        try:
            yield
        finally:
            _idle.clear()
            ray.shutdown()


@contextmanager
def _start_private(cpus: int | None) -> Iterator[None]:
    """A Ray of this process alone, which asks for a token."""
    options: dict[str, Any] = {"num_cpus": cpus or os.cpu_count()}
    options |= {"include_dashboard": False, "dashboard_host": address.LOOPBACK}
    # By default Ray gives a third of the free memory to its object store, which needs little here.
    options |= (
        {"_memory": int(free_memory.SHARE * free)} if math.isfinite(free := free_memory.read_free_memory()) else {}
    )
    free_memory.require_address_space()
    with token.require_token():
        try:
            _init_ray(address.LOCAL, **options)
        except Exception as error:
            raise _explain_start_failure(error) from error
        yield


@contextmanager
def _join(where: str) -> Iterator[None]:
    """The cluster at an address, with the token that the user set."""
    address.require_ray(where)
    try:
        _init_ray(where)
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(f"RAY_ADDRESS {where} cannot be joined ({reason}); {address.REMEDY}") from error
    yield


def _init_ray(where: str, **options: Any) -> None:
    import ray

    ray.init(
        address=where,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": WORKER | exported_variables()},
        **options,
    )


def _explain_start_failure(error: Exception) -> Exception:
    """The error to raise when a private Ray does not start."""
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
    return WorkerFailed(
        f"Ray did not start on this machine ({reason}); its logs lie in {logs}, and the same command goes on"
    )


@contextmanager
def actor(kind: type, options: Mapping[str, Any]) -> Iterator[Any]:
    """An actor of class `kind` for the block, not shared with others; it is killed when the block fails.

    A new process needs five seconds to import torch and transformers, so an actor without options is used again by the
    session's next block; one that occupies a placement or GPUs is killed. CPUs are Ray's default: one to be placed,
    none afterwards.
    """
    import ray

    # With any resource named, even num_gpus=0, the actor would occupy its CPU for as long as it lives.
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


def describe_cluster() -> str:
    """Nodes, CPUs, GPUs, memory in GiB and the address of the Ray of this process."""
    import ray

    total = ray.cluster_resources()
    nodes = sum(name.startswith("node:") and name != "node:__internal_head__" for name in total)
    return (
        f"{nodes} node{'s' * (nodes != 1)}, {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs, "
        f"{total.get('memory', 0) / 2**30:.1f} GiB for tasks, at {ray.get_runtime_context().gcs_address}"
    )


def start_idle_actor(kind: type) -> None:
    """Start a CPU actor of class `kind` ahead of the session's next block of `actor`."""
    import ray

    with _lock:
        if not _idle.get(kind):
            remote: Any = ray.remote
            _idle.setdefault(kind, []).append(remote(kind).remote())


def end_idle_actors() -> None:
    """Kill the actors that no block uses, to free their memory."""
    import ray

    with _lock:
        unused = [handle for handles in _idle.values() for handle in handles]
        _idle.clear()
    for handle in unused:
        ray.kill(handle)


def use_one_thread() -> None:
    """Limit this process to the threads of a worker, since another number of threads rounds otherwise.

    OpenBLAS reads the environment when scipy loads it, so a process that did so before keeps its number.
    """
    import torch

    os.environ.update(THREADS)
    torch.set_num_threads(1)


def wait_for(reference: Any, beat: Callable[[], None]) -> Any:
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
