"""Verifies snapshot files against their manifests before any number is computed from them.

A manifest holds the SHA-256 of each of its files, and a checksum of itself. Every file is hashed once before it is read
(about 1.5 GB/s), which detects a flipped byte, a replaced shard and a renamed tensor. A file that this process has
already hashed is not hashed again while its `Store.version` is unchanged. A file that is replaced between its check and
its reading is not detected. Checkpoints from elsewhere have no manifest and are not checked.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipelines.store import checksum
from pipelines.store.objects import Store
from pipelines.store.tensors import TensorRef
from pipelines.store.trajectory import Trajectory

BATCH = 256 * 2**20  # bytes below which this process hashes by itself: starting a remote task would cost more
CHUNK = 16 * 2**20  # bytes read at a time

HashFiles = Callable[[Sequence["File"]], Iterable[float]]

_proven: dict["File", str] = {}  # `Store.version` of each file that this process has verified


@dataclass(frozen=True)
class File:
    """A file of a committed snapshot, with its SHA-256 from the manifest."""

    store: Store
    key: str
    sha256: str


def list_files(refs: Iterable[TensorRef]) -> list[File]:
    """The files that tensors are read from, including those of their bases and views, each once."""
    parts = (part for ref in refs for part in (ref, ref.base, ref.view))
    return list(dict.fromkeys(File(part.store, part.key, part.sha256) for part in parts if part and part.sha256))


def verified_refs(trajectory: Trajectory, step: int) -> dict[str, TensorRef]:
    """References to a snapshot's tensors by name, after their files are verified.

    Errors: as `Trajectory.refs`, and ValueError in one line that names a file that is missing or differs from its
    manifest.
    """
    refs = trajectory.refs(step)
    verify_files(list_files(refs.values()))
    return refs


def find_problems(trajectory: Trajectory, step: int) -> list[str]:
    """The problems of a snapshot's files, one line per file. Errors: as `Trajectory.manifest`."""
    snapshot, lines = trajectory.snapshot(step), list[str]()
    for name, facts in trajectory.manifest(step)["files"].items():
        try:
            verify_files([File(snapshot.store, f"{snapshot.folder}/{name}", facts["sha256"])])
        except ValueError as error:
            lines.append(str(error))
    return lines


def verify_files(committed: Sequence[File], hash_files: HashFiles | None = None) -> list[float]:
    """Hash the files that this process has not verified yet; returns the wall and CPU seconds.

    hash_files: calls `hash_file` for many files in other processes and yields the CPU seconds of each; used from BATCH
    bytes up. Errors: as `verified_refs`.
    """
    begun, versions = (time.perf_counter(), time.process_time()), {file: _version(file) for file in committed}
    fresh = [file for file in committed if _proven.get(file) != versions[file]]
    alone = hash_files is None or sum(file.store.size(file.key) for file in fresh) < BATCH
    cpu = sum(map(hash_file, fresh) if hash_files is None or alone else hash_files(fresh))
    _proven.update({file: versions[file] for file in fresh})
    return [time.perf_counter() - begun[0], time.process_time() - begun[1] + (0.0 if alone else cpu)]


def hash_file(file: File) -> float:
    """Hash a file and compare it with its manifest; returns the CPU seconds. Errors: as `verified_refs`."""
    begun, total = time.process_time(), hashlib.sha256()
    size = file.store.size(file.key)
    for begin in range(0, size, CHUNK):
        total.update(file.store.read(file.key, begin, min(begin + CHUNK, size)))
    if (sha := total.hexdigest()) != file.sha256:
        raise ValueError(
            f"{file.key} has SHA-256 {sha[:12]}, and its manifest says {file.sha256[:12]}, so nothing is computed from "
            f"it; {checksum.REMEDY}"
        )
    return time.process_time() - begun


def _version(file: File) -> str:
    try:
        return file.store.version(file.key)
    except FileNotFoundError:
        raise ValueError(f"{file.key} is missing, and its manifest names it; {checksum.REMEDY}") from None
