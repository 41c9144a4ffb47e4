"""Figure 4: the highest memory of a worker over what it holds after its imports, in f32 copies of its largest matrix.

A fresh process reads one layer of a checkpoint of the model's shapes by byte range. Page cache is not counted, since
files are read and not mapped.
"""

import tempfile
from functools import partial
from pathlib import Path

from tests.bench import engine
from tests.bench.catalog import say
from tests.bench.checkpoints import write_trajectory
from tests.bench.row import Row, row
from tests.bench.sizes import Sizes
from tests.bench.workers import growth, measure, open_workers

MOST = 6.0


def measure_footprint(sizes: Sizes) -> list[Row]:
    layer = [shape for shape in sizes.model if ".layers.0." in shape.name]
    unit = 4 * max(shape.numel for shape in layer)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        base, step = write_trajectory(Path(folder), layer, "rl", 1)
        for case, parts in (("rotation", engine.ROTATION), ("with exact NSS", engine.DRIFT)):
            say(f"a layer, {case}")
            with open_workers(1) as pool:
                list(pool.map(partial(measure, (base, step), k=sizes.k, parts=parts), [shape.name for shape in layer]))
                grown = pool.submit(growth).result()
            note = f"{grown / 1e6:.0f} MB over units of {unit / 1e6:.0f} MB" if grown else "this system does not tell"
            value = grown / unit if grown else None
            rows.append(row(4, f"one layer, {case}", "peak memory", value, "matrices", most=MOST, note=note))
    return rows
