"""Figure 3: what a second one-thread worker gains, and whether cost is linear in snapshots, in matrices and in locking.

Workers are processes that take matrices, the largest first, from one queue; wall time excludes their start. The gain
is bounded by the cores that are free, so the note says how many others kept busy, and a missed goal counts as
undecided where that was more than BUSY. Cost: CPU seconds of c, fitted as a count^exponent by least squares in logs.

Locking compares snapshots in pairs. Its table alone is measured as `opd measure` does (`measuring`), of a small matrix
with growing numbers of snapshots: from the weights, and again from kept subspaces, when only the table was removed.
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import linear_regression, median

from pipelines.lake.lake import partition_key
from pipelines.store.objects import Store
from tests.bench import engine, measuring, synthetic
from tests.bench.catalog import Tell
from tests.bench.checkpoints import write_pair, write_trajectory
from tests.bench.row import Row, row
from tests.bench.seconds import PATIENCE, cpu
from tests.bench.shapes import Shape
from tests.bench.sizes import Sizes
from tests.bench.workers import Race, race

GAIN = 1.8
BUSY = 0.1  # cores
EXPONENT = 0.9, 1.1
LOCKING = 1.05  # exponent at most


def scaling(sizes: Sizes, tell: Tell) -> list[Row]:
    return _workers(sizes, tell) + _linear(sizes, tell) + _locking(sizes, tell)


def _workers(sizes: Sizes, tell: Tell) -> list[Row]:
    names = [shape.name for shape in sorted(sizes.ten, key=lambda shape: -shape.numel)]
    runs: dict[int, list[Race]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        tell(0.0, "writing two checkpoints")
        folders = write_pair(Path(folder), sizes.ten, "rl")
        for place in range(sizes.repeats):
            for count, done in runs.items():
                tell(0.1 + 0.5 * (place + (count - 1) / 2) / sizes.repeats, f"{count} workers")
                done.append(race(count, names, folders, sizes.k, engine.ROTATION))
            if sum(each.wall for each in runs[1]) > PATIENCE:
                break
    one, two = (median(each.wall for each in done) for done in runs.values())
    others = [each.others for each in runs[2]]
    known = [busy for busy in others if busy is not None]
    note = f"others kept {max(known):.2f} cores busy" if known else "idleness unknown"
    gain = row(3, "two workers", "one worker's wall over two's", one / two, "x", least=GAIN, note=note)
    if gain.met is False and (not known or max(known) > BUSY):
        gain = Row(**{**vars(gain), "met": None, "note": f"{note}: undecided"})
    return [
        row(3, "one worker", "wall, base and snapshot", one, "s", note=f"median of {len(runs[1])}"),
        row(3, "two workers", "wall, base and snapshot", two, "s", note=f"median of {len(runs[2])}"),
        gain,
    ]


def _linear(sizes: Sizes, tell: Tell) -> list[Row]:
    count, extent = max(sizes.counts), sizes.square
    tell(0.6, f"{count} snapshots")
    weights = [synthetic.weight("heavy", extent, extent, seed) for seed in range(count)]
    updates = [synthetic.updated(weights[0], "rl", synthetic.UPDATES["rl"].rel, seed) for seed in range(count)]
    own = [synthetic.updated(w0, "rl", synthetic.UPDATES["rl"].rel, 0) for w0 in weights]
    base = engine.prepare(weights[0], sizes.k, engine.ROTATION)

    def snapshots(number: int) -> None:
        for w_t in updates[:number]:
            engine.diagnose(base, w_t)

    def matrices(number: int) -> None:
        for w0, w_t in zip(weights[:number], own, strict=False):
            engine.diagnose(engine.prepare(w0, sizes.k, engine.ROTATION), w_t)

    rows = []
    for place, (case, call) in enumerate((("snapshots", snapshots), ("matrices", matrices))):
        tell(0.65 + 0.1 * place, case)
        seconds = [cpu(lambda call=call, number=number: call(number), sizes.repeats).seconds for number in sizes.counts]
        least, most = EXPONENT
        rows.append(_exponent(case, sizes.counts, seconds, least=least, most=most))
    return rows


def _locking(sizes: Sizes, tell: Tell) -> list[Row]:
    shape = Shape("model.layers.0.self_attn.q_proj.weight", *sizes.kept)
    seconds: dict[str, list[float]] = {"locking": [], "locking from kept subspaces": []}
    with tempfile.TemporaryDirectory() as folder:
        tell(0.85, f"writing {max(sizes.steps)} snapshots of {shape.m} x {shape.n}")
        paths = write_trajectory(Path(folder) / "weights", [shape], "rl", max(sizes.steps))
        store = Store(f"file://{folder}/store")
        for place, count in enumerate(sizes.steps):
            tell(0.88 + 0.12 * place / len(sizes.steps), f"locking of {count} snapshots")
            name, again = f"steps-{count}", []
            seconds["locking"].append(measuring.measure(store, paths[: count + 1], name, ("locking",)).seconds)
            for _ in range(sizes.repeats):
                store.remove(partition_key("locking", recipe=measuring.recipe(name), seed=0))
                again.append(measuring.measure(store, paths[: count + 1], name, ("locking",)).seconds)
            seconds["locking from kept subspaces"].append(median(again))
    return [_exponent(case, sizes.steps, spent, most=LOCKING) for case, spent in seconds.items()]


def _exponent(
    case: str, counts: Sequence[int], seconds: Sequence[float], *, least: float | None = None, most: float
) -> Row:
    note = ", ".join(f"{number}: {spent:.3g} s" for number, spent in zip(counts, seconds, strict=True))
    if len(counts) > 2:
        note += f"; between the last two {exponent(counts[-2:], seconds[-2:]):.2f}"
    return row(3, case, "exponent of CPU", exponent(counts, seconds), least=least, most=most, note=note)


def exponent(counts: Sequence[int], seconds: Sequence[float]) -> float:
    """b of the least-squares fit log seconds = log a + b log count."""
    return linear_regression([math.log(count) for count in counts], [math.log(spent) for spent in seconds]).slope
