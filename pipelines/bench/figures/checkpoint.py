"""Figure 5: seconds for all projections of one Qwen3-8B checkpoint, by set of diagnostics, and once per base.

On the CPU one matrix of each shape is measured and counted as often as the shape occurs: CPU seconds of one core.
Where there is a GPU, every matrix is made and measured on it, in seconds between device events.
"""

from collections import Counter
from collections.abc import Sequence

import torch

from pipelines.bench import engine, synthetic
from pipelines.bench.figures import Tell
from pipelines.bench.row import Row, row
from pipelines.bench.seconds import cpu, device
from pipelines.bench.shapes import Shape
from pipelines.bench.sizes import Sizes


def checkpoint(sizes: Sizes, tell: Tell) -> list[Row]:
    if torch.cuda.is_available():
        return _every(sizes, tell)
    return _sample(sizes, tell)


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


def _rows(spent: dict[str, Sequence[float]] | dict[str, list[float]], where: str, note: str) -> list[Row]:
    rows = []
    for name, (base, once) in spent.items():
        rows.append(row(5, name, f"{where}, once per base", base, "s", note=note))
        rows.append(row(5, name, f"{where}, per checkpoint", once, "s", note=note))
    return rows
