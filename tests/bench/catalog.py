"""The figures of the bench. Each is a function of the sizes and of `tell(share, words)` that returns rows.

- `accuracy.py`    1, one wide matrix: angles against float64, cost against the factorizations they replace
- `snapshot.py`    2, ten matrices from disk: cost against the published recipe and the tools in use
- `scaling.py`     3, a second worker, more snapshots, more matrices
- `footprint.py`   4, memory of a worker
- `checkpoint.py`  5, a whole Qwen3-8B checkpoint
- `steps.py`       6, training steps beside TRL's
- `step.py`        7, where a step's time goes
- `keeping.py`     8, what a snapshot costs beside a plain file
- `asking.py`      9, a filtered scan of a large table
- `default.py`     10, the default measurement of ten matrices, against the published recipe and the tools in use
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.row import Row
from tests.bench.sizes import Sizes

Tell = Callable[[float, str], None]


@dataclass(frozen=True)
class Figure:
    """title: what it is about; work: its usual share of a full bench, in seconds."""

    title: str
    work: float
    measure: Callable[[Sizes, Tell], list[Row]]


def figures() -> dict[int, Figure]:
    """All figures by number; torch is imported with them."""
    from tests.bench.figures.accuracy import accuracy
    from tests.bench.figures.asking import asking
    from tests.bench.figures.checkpoint import checkpoint
    from tests.bench.figures.default import default
    from tests.bench.figures.footprint import footprint
    from tests.bench.figures.keeping import keeping
    from tests.bench.figures.scaling import scaling
    from tests.bench.figures.snapshot import snapshot
    from tests.bench.figures.step import step
    from tests.bench.figures.steps import steps

    return {
        1: Figure("one wide matrix: exactness and cost of its rotation", 300, accuracy),
        2: Figure("ten matrices from disk: cost of a snapshot", 400, snapshot),
        3: Figure("scaling: workers, snapshots, matrices, locking", 150, scaling),
        4: Figure("memory of a worker", 40, footprint),
        5: Figure("a Qwen3-8B checkpoint", 1000, checkpoint),
        6: Figure("training steps beside TRL's", 240, steps),
        7: Figure("where a training step's time goes", 150, step),
        8: Figure("what a snapshot costs beside a plain file", 60, keeping),
        9: Figure("asking a table of ten million rows", 90, asking),
        10: Figure("the default measurement of ten matrices", 700, default),
    }
