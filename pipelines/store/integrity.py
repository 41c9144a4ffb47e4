"""Whether the files that numbers are computed from are what was committed, found out before the first number.

A manifest pins each of its files by SHA-256, and its own seal pins the manifest. Every file that is going to be read is
hashed once, so a flipped byte, a shard of another day and a tensor of another name are all found by the one digest, at
about 1.5 GB/s. What this process has hashed already and nobody wrote since (`Store.version`) is not hashed again. What
is exchanged between its proof and its reading is not found, and checkpoints from elsewhere have no manifest.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipelines.store import checksum
from pipelines.store.objects import Store
from pipelines.store.tensors import TensorRef
from pipelines.store.trajectory import Trajectory

BATCH = 256 * 2**20  # bytes below which this process hashes alone, since a task elsewhere would cost more
CHUNK = 16 * 2**20  # bytes read at a time

HashFiles = Callable[[Sequence["File"]], Iterable[float]]

_proven: dict["File", str] = {}  # version of what this process has found to be right


@dataclass(frozen=True)
class File:
    """A file of a committed snapshot, and the SHA-256 that its manifest says."""

    store: Store
    key: str
    sha256: str


def list_files(refs: Iterable[TensorRef]) -> list[File]:
    """The files that tensors are read from, with those of what they are kept beside, each once."""
    found: dict[File, None] = {}
    for ref in refs:
        for one in (ref, ref.base, ref.view):
            if one is not None and one.sha256:
                found[File(one.store, one.key, one.sha256)] = None
    return list(found)


def verified_refs(trajectory: Trajectory, step: int) -> dict[str, TensorRef]:
    """References to a snapshot's tensors by name, which may be read.

    Errors: as `Trajectory.refs`, and ValueError in one line naming a file that is gone or not what was committed.
    """
    refs = trajectory.refs(step)
    verify_files(list_files(refs.values()))
    return refs


def find_problems(trajectory: Trajectory, step: int) -> list[str]:
    """What is wrong with the files of a snapshot, one line each. Errors: as `Trajectory.manifest`."""
    snapshot, lines = trajectory.snapshot(step), list[str]()
    for name, facts in trajectory.manifest(step)["files"].items():
        try:
            verify_files([File(snapshot.store, f"{snapshot.folder}/{name}", facts["sha256"])])
        except ValueError as error:
            lines.append(str(error))
    return lines


def verify_files(committed: Sequence[File], hash_files: HashFiles | None = None) -> list[float]:
    """Wall and CPU seconds of hashing those that this process has not.

    hash_files: calls `hash_file` for each of many files in other processes and returns the CPU seconds; it is used
    where they are many bytes. Errors: as `proven`.
    """
    begun, there = (time.perf_counter(), time.process_time()), {file: _version(file) for file in committed}
    fresh = [file for file in committed if _proven.get(file) != there[file]]
    alone = hash_files is None or sum(file.store.size(file.key) for file in fresh) < BATCH
    cpu = sum(map(hash_file, fresh) if hash_files is None or alone else hash_files(fresh))
    _proven.update({file: there[file] for file in fresh})
    return [time.perf_counter() - begun[0], time.process_time() - begun[1] + (0.0 if alone else cpu)]


def hash_file(file: File) -> float:
    """CPU seconds that it took. Errors: as `proven`."""
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
