"""Figure 9: wall seconds to ask a table of many rows in many partitions, files in the page cache, median of some runs.

The question is the mean similarity by step (masters, input side, k 16): of one arm, whose partitions the paths name; of
one role of all arms, which the files must say; and of all. It is asked through `lake.scan`, and of the same files by
Polars and DuckDB alone, each with a thread a core.

The rows are random, of the table `locking`, in the lake's layout and encoding. They are written without waiting for the
disk, into a temporary folder (TMPDIR; 120 MB in full).
"""

import os
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

from pipelines.lake import TABLES, scan
from pipelines.lake.lake import encode_partition, partition_key
from pipelines.store.objects import Store
from tests.bench.catalog import say
from tests.bench.row import Row, row
from tests.bench.sizes import Sizes

TABLE, ARM, SEEDS = "locking", "bench.arm-0", 5
MOST = 5.0  # seconds: "a filtered scan in seconds"
ROLES, STEPS, LAST = ("q", "k", "v", "o", "gate", "up", "down"), (1, 2, 5, 10, 20, 30, 40, 50, 75, 95), 100
FACTS = {"study": "bench", "step_other": LAST, "k": 16, "error": 1e-6, "chance": 0.125, "dtype": "fp32"}
FACTS |= {"objective": "opd", "optimizer": "adamw(b1=0.9, b2=0.95, eps=1e-08)", "learning_rate": 3e-5}
FACTS |= {"weight_decay": 0.0, "run_steps": LAST, "method": "bench/1", "reason": None}
Ask = Callable[[dict[str, str]], pl.DataFrame]


def measure_scans(sizes: Sizes) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"file://{folder}")
        say("writing a table")
        nbytes = fill(store, sizes)
        about = f"{sizes.partitions * sizes.rows:,} rows in {sizes.partitions:,} partitions, {nbytes / 1e6:.0f} MB"
        for name, ask in readers(store).items():
            say(name)
            rows += _time_reader(name, ask, sizes.repeats, about)
    return rows


def readers(store: Store) -> dict[str, Ask | None]:
    """How to ask, by name: the columns step and similarity of the rows that have these values; None: not installed."""
    files = f"{store.path('lake')}/{TABLE}/recipe=*/seed=*/part-0.parquet"

    def mean_by_step(rows: pl.LazyFrame, having: dict[str, str]) -> pl.DataFrame:
        chosen = rows.filter(view="master", side="input", k=16, **having)
        return chosen.group_by("step").agg(pl.col("similarity").mean()).collect()

    return {
        "lake.scan": lambda having: mean_by_step(scan(TABLE, store.uri), having),
        "plain Polars": lambda having: mean_by_step(pl.scan_parquet(files, hive_partitioning=True), having),
        "DuckDB": _duckdb(files),
    }


def fill(store: Store, sizes: Sizes) -> int:
    """Write the table; returns its bytes."""
    draw, schema, nbytes = np.random.default_rng(0), TABLES[TABLE].schema, 0
    cells = list(product(STEPS, ("master", "bf16"), ("input", "output"), range(sizes.rows // 280 + 1), ROLES))
    grid = pl.DataFrame(cells[: sizes.rows], schema=["step", "view", "side", "layer", "role"], orient="row")
    name = pl.format("model.layers.{}.{}_proj", "layer", "role").alias("matrix")
    grid = grid.with_columns(name, *(pl.lit(value).alias(column) for column, value in FACTS.items()))
    for place in range(sizes.partitions):
        keys = {"recipe": f"bench.arm-{place // SEEDS}", "seed": place % SEEDS}
        values = pl.Series("similarity", draw.random(grid.height))
        frame = grid.with_columns(values, *(pl.lit(value).alias(column) for column, value in keys.items()))
        data = encode_partition(frame.select(pl.col(column).cast(dtype) for column, dtype in schema.items()))
        key = partition_key(TABLE, **keys)
        path = Path(store.path(key))
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        nbytes += len(data)
    return nbytes


def _time_reader(name: str, ask: Ask | None, repeats: int, about: str) -> list[Row]:
    questions = {"one arm of all, wall": {"recipe": ARM}, "one role of all arms, wall": {"role": "q"}}
    if ask is None:
        why = "DuckDB is not installed: make setup"
        return [row(9, name, quantity, None, "s", most=MOST, note=why) for quantity in questions]
    rows, (whole, whole_cpu) = [], _seconds(lambda: ask({}), repeats)
    for quantity, having in questions.items():
        spent, cpu = _seconds(lambda having=having: ask(having), repeats)
        rows.append(row(9, name, quantity, spent, "s", most=MOST, note=f"{cpu:.2f} CPU s; {about}"))
        if having == {"recipe": ARM}:
            rows.append(row(9, name, "one arm over all rows", cpu / whole_cpu, "x", note="CPU seconds"))
    return [*rows, row(9, name, "all rows, wall", whole, "s", note=f"{whole_cpu:.2f} CPU s")]


def _seconds(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median wall and CPU seconds, of all threads."""
    call()  # files come into the page cache, threads start
    wall, cpu = [], []
    for _ in range(repeats):
        begun = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - begun[0])
        cpu.append(time.process_time() - begun[1])
    return median(wall), median(cpu)


def _duckdb(files: str) -> Ask | None:
    try:
        import duckdb  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None

    def mean_by_step(having: dict[str, str]) -> pl.DataFrame:
        where = {"view": "master", "side": "input"} | having
        words = " AND ".join(f'"{column}" = ?' for column in where)
        with duckdb.connect(config={"threads": os.cpu_count() or 1}) as session:
            return session.sql(
                f"SELECT step, avg(similarity) AS similarity FROM read_parquet(?, hive_partitioning = true) "
                f"WHERE k = 16 AND {words} GROUP BY step",
                params=[files, *where.values()],
            ).pl()

    return mean_by_step
