"""Renders the data dictionary, every table and column as Markdown, from the schemas. `opd tables --dictionary`."""

from collections import Counter
from collections.abc import Iterable, Sequence

from pipelines.lake import schemas
from pipelines.lake.schemas import TABLES, Column, Table

MANY = 5  # a column that this many tables share is described once
HEAD = """# Data dictionary of the tables

Generated from `pipelines/lake/schemas/` by `opd tables --dictionary`; a test compares the two.

A table is a folder of Parquet files, one a partition, under the store (`.opd/store` or `OPD_STORE`). The keys of the
partition stand in the path and as columns in the file. With this project, `pipelines.lake.scan("rotation")` is a Polars
LazyFrame of all rows in the types below. Without it:

    -- Polars
    pl.scan_parquet(".opd/store/lake/rotation/recipe=*/seed=*/part-0.parquet", hive_partitioning=True)
    -- DuckDB
    SELECT * FROM read_parquet('.opd/store/lake/rotation/recipe=*/seed=*/part-0.parquet', hive_partitioning = true)

`scan` reads the partitions alone. These patterns leave out other files too, but not a folder `seed=0 copy` that was
copied beside one: `opd verify` names what is no partition.

Filters on the keys open only their partitions. Where files of several versions lie together, Polars wants
`missing_columns="insert", extra_columns="ignore"`, DuckDB `union_by_name = true`; `scan` needs neither.
"""


def render_dictionary() -> str:
    """The whole Markdown document."""
    shared = _shared()
    index = [[f"[{name}](#{name})", len(it.columns), f"`{_partition(it)}`", it.meaning] for name, it in TABLES.items()]
    parts = [
        HEAD,
        (schemas.__doc__ or "").split("\n\n", 1)[1],
        _grid(("table", "columns", "partition", "a row, or what it says"), index),
        f"## Shared columns\n\nThese mean the same in all of their tables, {MANY} or more.\n",
        _columns(shared),
        *(_section(table, shared) for table in TABLES.values()),
    ]
    return "\n".join(parts)


def _section(table: Table, shared: Sequence[Column]) -> str:
    own = [column for column in table.columns if column not in shared]
    names = ", ".join(f"`{column.name}`" for column in table.columns if column in shared)
    parts = [f"## {table.name}\n", f"{table.meaning}\n", f"`lake/{table.name}/{_partition(table)}/part-0.parquet`\n"]
    parts.append(_columns(own))
    return "\n".join([*parts, f"[Shared](#shared-columns): {names}\n"] if names else parts)


def _shared() -> list[Column]:
    """Columns that MANY tables share, in the order of their first table."""
    counts = Counter(column for table in TABLES.values() for column in table.columns)
    return [column for column, count in counts.items() if count >= MANY]


def _partition(table: Table) -> str:
    return "/".join(f"{name}=<{name}>" for name in table.by)


def _columns(columns: Iterable[Column]) -> str:
    rows = []
    for it in columns:
        was = f" (in older files: {', '.join(it.was)})" if it.was else ""
        rows.append([f"`{it.name}`", str(it.dtype), it.unit, (it.meaning + was).replace("<", "&lt;")])
    return _grid(("column", "type", "unit", "meaning"), rows)


def _grid(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
