"""Figure 5: seconds for all projections of one Qwen3-8B checkpoint, by set of diagnostics, and once per base.

On the CPU one matrix of each shape is measured and counted as often as the shape occurs: CPU seconds of one core.
Where there is a GPU, every matrix is made and measured on it, in seconds between device events.

The default measurement (`measuring`) of T checkpoints runs on CPUs everywhere. It has some tables at every step and the
others at n of the T steps. One and two checkpoints of one matrix of each shape (`shapes.counted`) are measured, with
base factors from the store, and extended in a straight line:

    CPU(T) = a_1 + (n - 1) (a_2 - a_1) + (T - n) (b_2 - b_1)

a_t: the default measurement of t checkpoints, both of which have all tables. b_t: the tables of every step alone. n and
those tables are counted in the tables of T checkpoints of a matrix of 16 x 16. Beside it stands what others take for a
snapshot of the same files (figure 10), measured once.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from pipelines.store.objects import Store
from tests.bench import engine, measuring, synthetic
from tests.bench.catalog import Tell
from tests.bench.checkpoints import write_trajectory
from tests.bench.figures.default import BASE, WHOLE, compared, others
from tests.bench.row import Row, row
from tests.bench.seconds import cpu, device
from tests.bench.shapes import Shape, counted
from tests.bench.sizes import Sizes


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
        full, every = _steps(folder / "small", sizes)
        for place, (shape, count) in enumerate(chosen):
            say = partial(tell, place / len(chosen))
            say(f"the default measurement of {shape.m} x {shape.n}")
            paths = write_trajectory(folder / str(place), [shape], "rl", 2)
            base, whole = _extended(Store(f"file://{folder}/store-{place}"), paths, sizes.snapshots, full, every)
            for what, seconds in ((BASE, base), (WHOLE, base + whole), *others(paths, sizes, absent, say)):
                spent[what] = spent.get(what, 0.0) + count * seconds
    about = (
        f"rl, {len(sizes.model)} matrices from {len(chosen)} measured at 1 and 2 checkpoints, extended to "
        f"{sizes.snapshots}, {full} of them with all tables"
    )
    return compared(5, [spent], sizes.snapshots, absent, about, {})


def _extended(
    store: Store, paths: list[Path], snapshots: int, full: int, every: tuple[str, ...]
) -> tuple[float, float]:
    """CPU seconds once per base, and of all snapshots without it. full: steps with all tables; every: of all steps."""
    first, second = (measuring.measure(store, paths[:count], f"all-{count}") for count in (2, 3))
    seconds = first.snapshots + (full - 1) * (second.snapshots - first.snapshots)
    if full < snapshots:
        one, two = (measuring.measure(store, paths[:count], f"every-{count}", every).snapshots for count in (2, 3))
        seconds += (snapshots - full) * (two - one)
    return first.base, seconds


def _steps(folder: Path, sizes: Sizes) -> tuple[int, tuple[str, ...]]:
    """How many steps of a default measurement have all tables, and the tables that all its steps have."""
    paths = write_trajectory(folder, [Shape(sizes.model[0].name, 16, 16)], "rl", sizes.snapshots)
    store = Store(f"file://{folder}/store")
    measuring.measure(store, paths, "small")
    counts = measuring.steps(store, "small")
    every = tuple(table for table, count in counts.items() if count >= sizes.snapshots - 1)  # locking: of pairs
    return min((count for table, count in counts.items() if table not in every), default=sizes.snapshots), every


def _rows(spent: dict[str, Sequence[float]] | dict[str, list[float]], where: str, note: str) -> list[Row]:
    rows = []
    for name, (base, once) in spent.items():
        rows.append(row(5, name, f"{where}, once per base", base, "s", note=note))
        rows.append(row(5, name, f"{where}, per checkpoint", once, "s", note=note))
    return rows
