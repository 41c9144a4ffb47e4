"""The figures of the bench: title and a function of the sizes that returns rows."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.row import Row
from tests.bench.sizes import Sizes


@dataclass(frozen=True)
class Figure:
    """One figure by what it is about."""

    title: str
    measure: Callable[[Sizes], list[Row]]


def list_figures() -> dict[int, Figure]:
    """All figures by number; torch is imported with them."""
    from tests.bench.figures.accuracy import measure_accuracy
    from tests.bench.figures.asking import measure_scans
    from tests.bench.figures.checkpoint import measure_checkpoint
    from tests.bench.figures.default import measure_default
    from tests.bench.figures.footprint import measure_footprint
    from tests.bench.figures.keeping import measure_storage
    from tests.bench.figures.scaling import measure_scaling
    from tests.bench.figures.snapshot import measure_snapshot
    from tests.bench.figures.step import measure_step
    from tests.bench.figures.steps import measure_steps

    return {
        1: Figure("one wide matrix: exactness and cost of its rotation", measure_accuracy),
        2: Figure("ten matrices from disk: cost of a snapshot", measure_snapshot),
        3: Figure("scaling: workers, snapshots, matrices, locking", measure_scaling),
        4: Figure("memory of a worker", measure_footprint),
        5: Figure("a Qwen3-8B checkpoint", measure_checkpoint),
        6: Figure("training steps beside TRL's", measure_steps),
        7: Figure("where a training step's time goes", measure_step),
        8: Figure("what a snapshot costs beside a plain file", measure_storage),
        9: Figure("asking a table of ten million rows", measure_scans),
        10: Figure("the default measurement of ten matrices", measure_default),
    }


def say(words: str) -> None:
    """Tell on stderr what is measured now."""
    print(f"  {words} ...", file=sys.stderr, flush=True)
