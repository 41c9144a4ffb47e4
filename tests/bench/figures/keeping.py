"""Figure 8: what snapshots cost beside plain files of fp32 masters, on a SmolLM2 trajectory.

bytes        of a snapshot kept losslessly beside the first one, of one kept as updates in bf16 with their bf16 views,
             and of the views alone beside plain bf16; the median over arms and steps
seconds      CPU seconds to commit, and to read, the last step of an arm, plain over coded; both hash what they write
wall         the same as time passes, to a disk (fsync) and from one (out of the page cache)
at most      of reads: bytes of the plain snapshot over those of the coded one and of its base, which are read too
one matrix   CPU seconds to read the whole snapshot over those to read its largest projection, both kept losslessly

The trajectories are those of the study smollm in the store, their first LAYERS layers, and for `one matrix` all of one
arm; without them, weights of the same shapes and updates of the size that 15 Adam steps at 1e-5 leave.
"""

import os
import tempfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from pipelines.store.objects import Store, default_uri
from pipelines.store.tensors import read
from pipelines.store.trajectory import Kept, Trajectory
from tests.bench.catalog import say
from tests.bench.row import Row, row
from tests.bench.seconds import cpu, wall
from tests.bench.sizes import Sizes

LAYERS = 4
ARMS = ("smollm.sft", "smollm.opd")
HIDDEN, SHARED, INNER = 576, 192, 1536  # SmolLM2-135M's
Steps = dict[int, dict[str, Tensor]]


def measure_storage(sizes: Sizes) -> list[Row]:
    store = Store(default_uri())
    found = {arm: Trajectory(store, arm, 0) for arm in ARMS if Trajectory(store, arm, 0).end()}
    arms = {arm: _stored(trajectory) for arm, trajectory in found.items()} or {"planted": planted(sizes)}
    source = "planted updates" if "planted" in arms else f"{', '.join(arms)}, {LAYERS} layers"
    with tempfile.TemporaryDirectory() as folder:
        kept = [_Kept(Store(f"file://{Path(folder)}/{arm}"), steps) for arm, steps in arms.items()]
        say("bytes")
        rows = _bytes(kept, source)
        say("seconds")
        rows += _seconds(kept[-1], sizes)
        say("one matrix")
        whole = _ends(next(iter(found.values()))) if found else kept[-1].steps
        return [*rows, _one_matrix(Store(f"file://{Path(folder)}/whole"), whole, sizes)]


class _Kept:
    """The snapshots of one arm, kept in each way. files: bytes by way, step and file."""

    def __init__(self, store: Store, steps: Steps) -> None:
        self.store, self.steps = store, steps
        self.last = max(steps)
        for way in ("exact", "bf16-update"):
            run = Trajectory(store, way, 0)
            for step, tensors in steps.items():
                run.commit(step, tensors, None if step == 0 else 0, way)
        Trajectory(store, "plain", 0).commit(self.last, steps[self.last], None)

    def size(self, way: str, step: int, file: str) -> int:
        return Trajectory(self.store, way, 0).manifest(step)["files"][file]["size"]

    def bytes(self, way: str) -> int:
        """What reading the last step reads: the snapshot, and what it is kept beside."""
        run = Trajectory(self.store, way, 0)
        steps = {self.last} | ({0} if run.manifest(self.last)["base"] else set())
        return sum(file["size"] for step in steps for file in run.manifest(step)["files"].values())

    def read(self, way: str) -> None:
        read(Trajectory(self.store, way, 0).refs(self.last))

    def forget(self, way: str) -> None:
        """Take the files of a run out of the page cache; without a system that can, they stay there."""
        for key in self.store.find(Trajectory(self.store, way, 0).prefix):
            if hasattr(os, "posix_fadvise"):
                with open(self.store.path(key), "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def commit(self, way: str, kept: Kept) -> Callable[[], None]:
        """Commits the last step of a run of this name again."""
        run, tensors = Trajectory(self.store, way, 0), self.steps[self.last]

        def again() -> None:
            self.store.remove(run.snapshot(self.last).folder)
            run.commit(self.last, tensors, None if way == "plain" else 0, kept)

        return again


def _bytes(kept: list[_Kept], source: str) -> list[Row]:
    exact, updates, views = [], [], []
    for one in kept:
        for step, tensors in one.steps.items():
            if step:
                plain = sum(tensor.nbytes for tensor in tensors.values())
                master, view = (one.size("bf16-update", step, f"{name}.safetensors") for name in ("master", "bf16"))
                exact.append(one.size("exact", step, "master.safetensors") / plain)
                updates.append((master + view) / plain)
                views.append(view / (plain / 2))

    def spread(found: list[float]) -> str:
        return f"{source}; {min(found):.3f} to {max(found):.3f}"

    return [
        row(8, "lossless", "bytes over plain fp32", median(exact), "x", most=0.6, note=spread(exact)),
        row(8, "updates in bf16", "bytes over plain fp32", median(updates), "x", most=0.36, note=spread(updates)),
        row(8, "bf16 views", "bytes over plain bf16", median(views), "x", most=0.15, note=spread(views)),
    ]


def _seconds(kept: _Kept, sizes: Sizes) -> list[Row]:
    rows, megabytes = [], sum(tensor.nbytes for tensor in kept.steps[kept.last].values()) / 1e6

    def cold(way: str) -> None:
        kept.forget(way)
        kept.read(way)

    ways: tuple[tuple[str, Kept], ...] = (("exact", "exact"), ("bf16-update", "bf16-update"))
    for way, how in ways:
        most = kept.bytes("plain") / kept.bytes(way)
        commits = kept.commit("plain", "exact"), kept.commit(way, how)
        reads = [(lambda way=way: kept.read(way)) for way in ("plain", way)]
        for what, clock, (plain, coded) in (
            ("commit, plain over coded", cpu, commits),
            ("read, plain over coded", cpu, reads),
            ("commit to disk, plain over coded, wall", wall, commits),
            ("read from disk, plain over coded, wall", wall, [(lambda way=way: cold(way)) for way in ("plain", way)]),
        ):
            pairs = [(clock(plain).seconds, clock(coded).seconds) for _ in range(sizes.repeats)]
            ratio = median(before / after for before, after in pairs)
            rates = [f"{megabytes / median(seconds):.0f} MB/s" for seconds in zip(*pairs, strict=True)]
            bound = f"; at most {most:.2f} by bytes" if what.startswith("read") else ""
            rows.append(row(8, way, what, ratio, "x", least=0.7, note=" against ".join(rates) + bound))
    return rows


def _one_matrix(store: Store, steps: Steps, sizes: Sizes) -> Row:
    """The last of two snapshots, kept beside the first."""
    run, last = Trajectory(store, "whole", 0), max(steps)
    for step in (0, last):
        run.commit(step, steps[step], None if step == 0 else 0)
    refs = run.refs(last)
    matrix = max((ref for name, ref in refs.items() if ".layers." in name), key=lambda ref: prod(ref.shape))

    def all_of_it() -> None:
        for ref in refs.values():
            ref.read()

    pairs = [(cpu(all_of_it).seconds, cpu(matrix.read).seconds) for _ in range(sizes.repeats)]
    ratio = median(whole / one for whole, one in pairs)
    share = prod(matrix.shape) / sum(prod(ref.shape) for ref in refs.values())
    note = f"the matrix is 1/{1 / share:.0f} of the entries of {len(refs)} tensors"
    return row(8, "one matrix", "whole over one", ratio, "x", least=20.0 if len(refs) > 100 else None, note=note)


def _ends(trajectory: Trajectory) -> Steps:
    """All of a trajectory's first and last snapshot."""
    steps = trajectory.steps()
    return {step: read(trajectory.refs(step)) for step in (0, steps[-1])}


def _stored(trajectory: Trajectory) -> Steps:
    """The first layers of a trajectory, at its first step and some later ones."""
    steps = trajectory.steps()
    wanted = [steps[0], *steps[1 :: max(1, (len(steps) - 1) // 2)][-2:], steps[-1]]
    inside = tuple(f".layers.{layer}." for layer in range(LAYERS))
    return {
        step: read({name: ref for name, ref in trajectory.refs(step).items() if any(part in name for part in inside)})
        for step in dict.fromkeys(wanted)
    }


def planted(sizes: Sizes) -> Steps:
    """Random weights in the shapes of SmolLM2's layers, and updates such as 15 Adam steps at 1e-5 leave."""
    scale = 1 if sizes.install else 8
    hidden, shared, inner = HIDDEN // scale, SHARED // scale, INNER // scale
    shapes = {"q": (hidden, hidden), "k": (shared, hidden), "v": (shared, hidden), "o": (hidden, hidden)}
    shapes |= {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
    draw, base = torch.Generator().manual_seed(0), {}
    for layer in range(LAYERS):
        for role, shape in shapes.items():
            weight = 0.05 * torch.randn(shape, generator=draw)
            base[f"model.layers.{layer}.{role}.weight"] = weight.bfloat16().float()
    moved = {name: weight + 3e-5 * torch.randn(weight.shape, generator=draw) for name, weight in base.items()}
    return {0: base, 15: moved}
