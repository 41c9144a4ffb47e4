"""Figure 4: the highest memory of a worker over what it holds after its imports, in f32 copies of its largest matrix.

A fresh process reads one layer of a checkpoint of the model's shapes by byte range, with everything measured, then
another one reads the embedding alone. Page cache is not counted, since files are read and not mapped.
"""

import tempfile
from pathlib import Path

from tests.bench import engine
from tests.bench.catalog import Tell
from tests.bench.checkpoints import write_pair
from tests.bench.row import Row, row
from tests.bench.shapes import EMBEDDING
from tests.bench.sizes import Sizes
from tests.bench.workers import worker

MOST = 6.0


def footprint(sizes: Sizes, tell: Tell) -> list[Row]:
    layer = [shape for shape in sizes.model if ".layers.0." in shape.name]
    unit = 4 * max(shape.numel for shape in layer)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tell(0.0, "writing two checkpoints")
        folders = write_pair(Path(folder), layer, "rl", vocabulary=sizes.vocabulary)
        cases = {"rotation": (engine.ROTATION, layer), "with exact NSS": (engine.DRIFT, layer)}
        for place, (case, (parts, shapes)) in enumerate(cases.items()):
            with worker(folders, sizes.k, parts) as mine:
                for done, shape in enumerate(shapes):
                    tell(0.2 + 0.35 * (place + done / len(shapes)), f"{case}, {shape.name}")
                    mine.measure(shape.name)
                rows.append(_row(f"one layer, {case}", mine.growth(), unit))
        tell(0.9, "embedding")
        with worker(folders, sizes.k, engine.ROTATION) as mine:
            mine.measure(EMBEDDING)
            rows.append(_row(f"embedding of {sizes.vocabulary} rows", mine.growth(), unit))
    return rows


def _row(case: str, growth: int, unit: int) -> Row:
    note = f"{growth / 1e6:.0f} MB over units of {unit / 1e6:.0f} MB" if growth else "this system does not tell"
    return row(4, case, "peak memory", growth / unit if growth else None, "matrices", most=MOST, note=note)
