"""Figure 5: CPU seconds of one core for all projections of one Qwen3-8B checkpoint, by set of diagnostics.

One matrix of each shape is measured and counted as often as the shape occurs. Base factors are counted apart.
"""

from collections import Counter

from tests.bench import engine, synthetic
from tests.bench.catalog import say
from tests.bench.row import Row, row
from tests.bench.seconds import cpu
from tests.bench.sizes import Sizes


def measure_checkpoint(sizes: Sizes) -> list[Row]:
    counts = Counter(shape.extents for shape in sizes.model)
    note = f"{len(sizes.model)} matrices from {len(counts)} measured"
    base_seconds, seconds = dict.fromkeys(engine.SETS, 0.0), dict.fromkeys(engine.SETS, 0.0)
    for seed, ((m, n), count) in enumerate(counts.items()):
        w0 = synthetic.weight("heavy", m, n, seed)
        w_t = synthetic.updated(w0, "rl", synthetic.UPDATES["rl"].rel, seed)
        for name, parts in engine.SETS.items():
            say(f"{m} x {n}, {name}")
            base = cpu(lambda w0=w0, parts=parts: engine.prepare(w0, sizes.k, parts))
            base_seconds[name] += count * base.seconds
            snapshot = cpu(lambda base=base, w_t=w_t: engine.diagnose(base.result, w_t), sizes.repeats)
            seconds[name] += count * snapshot.seconds
    return [
        made
        for name in engine.SETS
        for made in (
            row(5, name, "CPU, once per base", base_seconds[name], "s", note=note),
            row(5, name, "CPU, per checkpoint", seconds[name], "s", note=note),
        )
    ]
