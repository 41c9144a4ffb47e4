"""Figure 5: seconds for all projections of one Qwen3-8B checkpoint, by set of diagnostics, and once per base.

On the CPU one matrix of each shape is measured and counted as often as the shape occurs: CPU seconds of one core.
Where there is a GPU, every matrix is made and measured on it, in seconds between device events.

The default measurement (`measuring`) of T checkpoints runs on CPUs everywhere. One and two checkpoints of one matrix of
each shape (`shapes.counted`) are measured, with base factors from the store, and extended in a straight line; nulls by
themselves, since they are made for some of the steps alone:

    CPU(T) = a_1 + (T - 1) (a_2 - a_1) + b_1 + (n - 1) (b_2 - b_1)

a_t: all tables but nulls, of t checkpoints. b_t: nulls, of t. n: how many of T steps have nulls by default, as counted
in the tables of a matrix of 16 x 16. Beside it stands what others take for a snapshot of the same files (figure 10),
measured once.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from pipelines.bench import engine, measuring, synthetic
from pipelines.bench.checkpoints import write_trajectory
from pipelines.bench.figures import Tell
from pipelines.bench.figures.default import BASE, WHOLE, compared, others
from pipelines.bench.row import Row, row
from pipelines.bench.seconds import cpu, device
from pipelines.bench.shapes import Shape, counted
from pipelines.bench.sizes import Sizes
from pipelines.store.objects import Store


def checkpoint(sizes: Sizes, tell: Tell) -> list[Row]:
    chosen = _every if torch.cuda.is_available() else _sample
    rows = chosen(sizes, lambda share, words: tell(0.3 * share, words))
    return rows + _default(sizes, lambda share, words: tell(0.3 + 0.7 * share, words))


def _sample(sizes: Sizes, tell: Tell) -> list[Row]:
    counts = Counter(shape.extents for shape in sizes.model)
    spent = {name: [0.0, 0.0] for name in engine.SETS}
    for place, ((m, n), times) in enumerate(counts.items()):
        w0 = synthetic.weight("heavy", m, n, place)
        w_t = synthetic.updated(w0, "rl", synthetic.UPDATES["rl"].rel, place)
        for step, (name, parts) in enumerate(engine.SETS.items()):
            tell((place + step / len(engine.SETS)) / len(counts), f"{m} x {n}, {name}")
            base = cpu(lambda w0=w0, parts=parts: engine.prepare(w0, sizes.k, parts))
            once = cpu(lambda base=base, w_t=w_t: engine.diagnose(base.result, w_t), sizes.repeats)
            spent[name][0] += times * base.seconds
            spent[name][1] += times * once.seconds
    note = f"{len(sizes.model)} matrices from {len(counts)} measured"
    return _rows(spent, "CPU", note)


def _every(sizes: Sizes, tell: Tell) -> list[Row]:
    spent = {name: [0.0, 0.0] for name in engine.SETS}
    _measure_on_device(sizes.model[0], 0, sizes.k)  # libraries and kernels load at first use
    for place, shape in enumerate(sizes.model):
        tell(place / len(sizes.model), shape.name)
        for name, seconds in _measure_on_device(shape, place, sizes.k).items():
            for slot in range(2):
                spent[name][slot] += seconds[slot]
    return _rows(spent, torch.cuda.get_device_name(), f"{len(sizes.model)} matrices, device events")


def _measure_on_device(shape: Shape, seed: int, k: int) -> dict[str, tuple[float, float]]:
    """By set, seconds of the base and of one snapshot."""
    w0 = synthetic.weight("heavy", shape.m, shape.n, seed, "cuda")
    w_t = synthetic.updated(w0, "rl", synthetic.UPDATES["rl"].rel, seed)
    found = {}
    for name, parts in engine.SETS.items():
        base = device(lambda parts=parts: engine.prepare(w0, k, parts))
        once = device(lambda base=base: engine.diagnose(base.result, w_t))
        found[name] = base.seconds, once.seconds
    return found


def _default(sizes: Sizes, tell: Tell) -> list[Row]:
    """The default measurement of `sizes.snapshots` checkpoints, and what others take."""
    chosen, spent, absent = counted(sizes.model), dict[str, float](), dict[str, str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nulls = _null_steps(folder / "small", sizes)
        for place, (shape, count) in enumerate(chosen):
            say = partial(tell, place / len(chosen))
            say(f"the default measurement of {shape.m} x {shape.n}")
            paths = write_trajectory(folder / str(place), [shape], "rl", 2)
            base, whole = _extended(Store(f"file://{folder}/store-{place}"), paths, sizes.snapshots, nulls)
            for what, seconds in ((BASE, base), (WHOLE, base + whole), *others(paths, sizes, absent, say)):
                spent[what] = spent.get(what, 0.0) + count * seconds
    about = (
        f"rl, {len(sizes.model)} matrices from {len(chosen)} measured at 1 and 2 checkpoints, extended to "
        f"{sizes.snapshots}, {nulls} of them with nulls"
    )
    return compared(5, [spent], sizes.snapshots, absent, about, {})


def _extended(store: Store, paths: list[Path], snapshots: int, nulls: int) -> tuple[float, float]:
    """CPU seconds once per base, and of all snapshots without it."""
    steadily = tuple(table for table in measuring.DEFAULT.tables if table != "nulls")
    first, second = (measuring.measure(store, paths[:count], f"without-nulls-{count}", steadily) for count in (2, 3))
    null, more = (measuring.measure(store, paths[:count], f"nulls-{count}", ("nulls",)) for count in (2, 3))
    steady = first.snapshots + (snapshots - 1) * (second.snapshots - first.snapshots)
    return first.base, steady + null.snapshots + (nulls - 1) * (more.snapshots - null.snapshots)


def _null_steps(folder: Path, sizes: Sizes) -> int:
    """Of the steps of a default measurement."""
    paths = write_trajectory(folder, [Shape(sizes.model[0].name, 16, 16)], "rl", sizes.snapshots)
    store = Store(f"file://{folder}/store")
    measuring.measure(store, paths, "small")
    return measuring.null_steps(store, "small")


def _rows(spent: dict[str, Sequence[float]] | dict[str, list[float]], where: str, note: str) -> list[Row]:
    rows = []
    for name, (base, once) in spent.items():
        rows.append(row(5, name, f"{where}, once per base", base, "s", note=note))
        rows.append(row(5, name, f"{where}, per checkpoint", once, "s", note=note))
    return rows
