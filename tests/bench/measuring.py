"""The default measurement: what `opd measure` does with checkpoints, serially and in this process.

From files to tables: planning, base factors, every snapshot, nulls, locking, and the parts and tables it writes. What
the command does besides is outside: its imports, its options and its page.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines import lake
from pipelines.cli import request
from pipelines.runs.external import imports
from pipelines.store.objects import Store
from pipelines.studies.study import Measurement
from tests.bench.seconds import cpu


def _default() -> Measurement:
    """What the command asks for without options."""
    parser = ArgumentParser()
    request.add_options(parser)
    return request.parse_measurement(parser.parse_args([]))


DEFAULT = _default()


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a measurement, and how many of them made base factors that the store did not hold."""

    seconds: float
    base: float

    @property
    def snapshots(self) -> float:
        """Without base factors."""
        return self.seconds - self.base


def measure(store: Store, folders: Sequence[Path], name: str, tables: Sequence[str] = DEFAULT.tables) -> Cost:
    """Measure checkpoints (`checkpoints.write_trajectory`) under a name: W0, then steps 1 on.

    What the store has of that name is not measured again. Errors: RuntimeError where the measurement has problems.
    """
    base, *steps = map(str, folders)
    asked = replace(DEFAULT, tables=tuple(tables))
    spent = cpu(
        lambda: imports.measure_import(
            imports.plan_import(store, base, [*enumerate(steps, 1)], asked, name), serial=True
        )
    )
    if spent.result:
        raise RuntimeError(f"the measurement {name} has problems: {spent.result[0]}")
    timing = lake.read_partition(store, "timing", recipe=recipe(name), seed=0)
    phases = {} if timing is None else dict(timing.select("phase", "cpu_s").iter_rows())
    return Cost(spent.seconds, phases.get("base", 0.0))


def recipe(name: str) -> str:
    """Of the rows of a measurement."""
    return f"{imports.STUDY}.{name}"


def steps(store: Store, name: str) -> dict[str, int]:
    """By table, at how many steps a measurement has rows."""
    tables = {table: lake.read_partition(store, table, recipe=recipe(name), seed=0) for table in DEFAULT.tables}
    return {table: 0 if rows is None else rows["step"].n_unique() for table, rows in tables.items()}
