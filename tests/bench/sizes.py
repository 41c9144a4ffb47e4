"""How big everything is: in full, and small enough for a smoke test."""

from dataclasses import dataclass

from tests.bench.shapes import Extents, Shape, qwen3_8b, qwen_like


@dataclass(frozen=True, kw_only=True)
class Sizes:
    wide: tuple[int, int]  # the one matrix of figure 1
    ten: tuple[Shape, ...]  # the checkpoint of figures 2, 3 and 10
    square: int  # extent of the matrices whose number grows in figure 3
    counts: tuple[int, ...]  # numbers of snapshots and of matrices in figure 3
    model: tuple[Shape, ...]  # the projections of figures 4 and 5
    snapshots: int  # of the default measurement, in figure 10
    kept: tuple[int, int]  # the matrix of figure 3 whose snapshots are locked in pairs
    steps: tuple[int, ...]  # and the numbers of its snapshots
    k: int  # cut of every rotation
    partitions: int  # files of figure 9's table
    rows: int  # rows of each of them
    repeats: int  # runs of ours, of which the median counts
    install: bool  # whether absent peers are installed


FULL = Sizes(
    wide=(4096, 12288),
    ten=tuple(qwen_like()),
    square=2048,
    counts=(1, 2, 4, 8),
    model=tuple(qwen3_8b()),
    snapshots=10,
    kept=(256, 768),
    steps=(10, 30, 100, 300),
    k=64,
    partitions=5000,
    rows=2000,
    repeats=3,
    install=True,
)
QUICK = Sizes(
    wide=(512, 1536),
    ten=tuple(qwen_like(512)),
    square=256,
    counts=(1, 2, 4),
    model=tuple(Extents(hidden=512, heads=512, kv=128, mlp=1536).decoder(2)),
    snapshots=4,
    kept=(64, 96),
    steps=(3, 10, 30),
    k=16,
    partitions=200,
    rows=500,
    repeats=1,
    install=False,
)
