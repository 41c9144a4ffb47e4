"""Figure 3: what a second one-thread worker gains, and whether cost is linear in snapshots, in matrices and in locking.

Workers are processes that take matrices, the largest first, from one queue; wall time excludes their start. The gain
is bounded by the cores that are free, so the note has the load average. Cost: CPU seconds of c, fitted as
a count^exponent by least squares in logs.

Locking compares snapshots in pairs. Its table alone is measured as `opd measure` does (`measuring`), of a small matrix
with growing numbers of snapshots: from the weights, and again from kept subspaces, when only the table was removed.
"""

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import linear_regression, median

from pipelines.lake.lake import partition_key
from pipelines.store.objects import Store
from tests.bench import engine, measuring, synthetic
from tests.bench.catalog import say
from tests.bench.checkpoints import write_trajectory
from tests.bench.row import Row, row
from tests.bench.seconds import PATIENCE, cpu
from tests.bench.shapes import Shape
from tests.bench.sizes import Sizes
from tests.bench.workers import race

GAIN = 1.8
EXPONENT = 0.9, 1.1
LOCKING = 1.05  # exponent at most


def measure_scaling(sizes: Sizes) -> list[Row]:
    return _workers(sizes) + _linear(sizes) + _locking(sizes)


def _workers(sizes: Sizes) -> list[Row]:
    names = [shape.name for shape in sorted(sizes.ten, key=lambda shape: -shape.numel)]
    walls: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        base, step = write_trajectory(Path(folder), sizes.ten, "rl", 1)
        for _ in range(sizes.repeats):
            for count, seconds in walls.items():
                say(f"{count} workers")
                seconds.append(race(count, names, (base, step), sizes.k, engine.ROTATION))
            if sum(walls[1]) > PATIENCE:
                break
    one, two = (median(seconds) for seconds in walls.values())
    note = f"median of {len(walls[1])}"
    load = f"load average {os.getloadavg()[0]:.1f}"
    return [
        row(3, "one worker", "wall, base and snapshot", one, "s", note=note),
        row(3, "two workers", "wall, base and snapshot", two, "s", note=note),
        row(3, "two workers", "one worker's wall over two's", one / two, "x", least=GAIN, note=load),
    ]


def _linear(sizes: Sizes) -> list[Row]:
    count, extent = max(sizes.counts), sizes.square
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
    for case, call in (("snapshots", snapshots), ("matrices", matrices)):
        say(case)
        seconds = [cpu(lambda call=call, number=number: call(number), sizes.repeats).seconds for number in sizes.counts]
        least, most = EXPONENT
        rows.append(_exponent(case, sizes.counts, seconds, least=least, most=most))
    return rows


def _locking(sizes: Sizes) -> list[Row]:
    shape = Shape("model.layers.0.self_attn.q_proj.weight", *sizes.kept)
    seconds: dict[str, list[float]] = {"locking": [], "locking from kept subspaces": []}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_trajectory(Path(folder) / "weights", [shape], "rl", max(sizes.steps))
        store = Store(f"file://{folder}/store")
        for count in sizes.steps:
            say(f"locking of {count} snapshots")
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
    return row(3, case, "exponent of CPU", fit_exponent(counts, seconds), least=least, most=most, note=note)


def fit_exponent(counts: Sequence[int], seconds: Sequence[float]) -> float:
    """b of the least-squares fit log seconds = log a + b log count."""
    return linear_regression([math.log(count) for count in counts], [math.log(spent) for spent in seconds]).slope
