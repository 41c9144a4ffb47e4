"""What the UI shows beside an asset: column schemas, row counts, URIs, small tables and figures."""

import base64
from collections.abc import Sequence
from typing import Any

import dagster as dg

from pipelines.lake import TABLES, written
from pipelines.lake.lake import partition_key
from pipelines.store.objects import Store

PNG_LIMIT = 200_000  # bytes: figures live in Dagster's event database


def columns(table: str) -> dg.TableSchema:
    """A table's declared schema with units and meanings."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                str(column.dtype),
                description=f"{column.meaning} [{column.unit}]" if column.unit else column.meaning,
            )
            for column in TABLES[table].columns
        ]
    )


def table_spec(table: str, **spec: Any) -> dg.AssetSpec:
    """The asset of one lake table, described from its declaration."""
    return dg.AssetSpec(
        table,
        description=TABLES[table].meaning,
        metadata={"dagster/column_schema": columns(table)},
        kinds={"parquet", "polars"},
        **spec,
    )


def stored(store: Store, table: str, **partition: str | int) -> dict[str, Any]:
    """URI and row count of one partition of a table."""
    found = written(store, table, **partition)
    return {
        "dagster/uri": f"{store.uri}/{partition_key(table, **partition)}",
        "dagster/partition_row_count": 0 if found is None else found.height,
    }


def small_table(rows: Sequence[dict[str, Any]]) -> dg.MetadataValue:
    """Rows as a Markdown table; numbers with four significant digits."""
    if not rows:
        return dg.MetadataValue.md("nothing")
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    return dg.MetadataValue.md("\n".join("| " + " | ".join(line) + " |" for line in lines))


def figure(png: bytes) -> dg.MetadataValue:
    """A PNG inline; a note instead of one too large for the event database."""
    if len(png) > PNG_LIMIT:
        return dg.MetadataValue.md(f"{len(png):,} bytes: see the report")
    return dg.MetadataValue.md(f"![figure](data:image/png;base64,{base64.b64encode(png).decode()})")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
