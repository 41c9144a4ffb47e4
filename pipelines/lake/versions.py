"""Reads files of older and newer versions of a table in the declared schema.

added      a column that a file lacks is null
widened    a narrower integer or float column is cast to the declared type; integers are also cast to floats
renamed    a column with former names (`Column.was`) is read from whichever name the file has
removed    a column that is no longer declared is not read
newer      columns that this version does not know are not read; a column that a newer version renamed is null here
otherwise  a column of another type is an error (SchemaError, one line); `opd verify` names the file

So a column must keep its meaning and unit: a column with another meaning gets a new name.
"""

import io
from collections.abc import Sequence
from typing import Any

import polars as pl

from pipelines.lake.schemas import Table

WIDER = pl.ScanCastOptions(integer_cast=["upcast", "allow-float"], float_cast="upcast")


def read_files(
    sources: Sequence[Any], table: Table, *, by_path: bool = False, storage_options: dict[str, str] | None = None
) -> pl.LazyFrame:
    """The rows of some files in the declared schema. by_path: take the partition keys from the paths."""
    frame = pl.scan_parquet(
        list(sources),
        schema=known_columns(table),
        glob=False,
        hive_partitioning=by_path,
        hive_schema={name: table.schema[name] for name in table.by} if by_path else None,
        missing_columns="insert",
        extra_columns="ignore",
        cast_options=WIDER,
        storage_options=storage_options,
    )
    renamed = [column for column in table.columns if column.was]
    if not renamed:
        return frame
    return frame.with_columns(pl.coalesce(it.name, *it.was).alias(it.name) for it in renamed).select(*table.schema)


def known_columns(table: Table) -> pl.Schema:
    """The declared columns, followed by their former names."""
    return pl.Schema(table.schema | {name: column.dtype for column in table.columns for name in column.was})


def explain_mismatch(table: Table, schema: pl.Schema) -> str:
    """Why a file of this schema cannot be read as the table; empty if it can."""
    declared = known_columns(table)
    for name, dtype in schema.items():
        if name in declared and dtype != declared[name] and not _widens(dtype, declared[name]):
            return f"has a column {name} of type {dtype}, and {declared[name]} is declared"
    missing = [name for name in table.by if name not in schema]
    return f"lacks the column {missing[0]}" if missing else ""


def _widens(stored: pl.DataType, declared: pl.DataType) -> bool:
    """Whether Polars casts a stored column type to the declared one."""
    file = io.BytesIO()
    pl.Series("", [None], stored).to_frame().write_parquet(file)
    file.seek(0)
    try:
        pl.scan_parquet(file, schema={"": declared}, cast_options=WIDER).collect()
    except pl.exceptions.SchemaError:
        return False
    return True
