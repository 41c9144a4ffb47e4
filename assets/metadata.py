"""Metadata that the UI shows: owners, code version and schema of an asset; location and digest of a materialisation.

This module, `effort` and `lineage` make all metadata, from values that the step has already read.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, TypedDict

import dagster as dg
import polars as pl

from assets.sketch import Point, sketch
from pipelines.lake import TABLES
from pipelines.lake.lake import partition_key, read_partition_file
from pipelines.statistics import markdown
from pipelines.store.names import escape_text
from pipelines.store.objects import Store
from pipelines.store.snapshot import LAYOUT

OWNERS = ["team:geometry"]
PNG_LIMIT = 200_000  # bytes: figures live in Dagster's event database
PAGES, PAGES_PORT = "OPD_REPORTS", 3001  # where the reports are served, as by `make ui`
SNAPSHOTS = f"snapshots {LAYOUT}"  # code version of what training writes


class AssetArguments(TypedDict):
    """Arguments that every asset has: group, kinds, owners and code version."""

    group_name: str
    kinds: set[str]
    owners: Sequence[str]
    code_version: str


REPORTING = (
    "pipelines.statistics",
    "pipelines.regimes",
    "pipelines.report",
    "pipelines.paper",
)  # what verdicts are made by


def asset_arguments(group: str, *kinds: str, version: str) -> AssetArguments:
    return AssetArguments(group_name=group, kinds=set(kinds), owners=OWNERS, code_version=version)


@cache
def digest_sources(*packages: str) -> str:
    """A digest of packages' sources: the code version of assets that are made again when the code changes."""
    digest = hashlib.sha256()

    def add(folder: Traversable) -> None:
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.is_dir() and entry.name != "__pycache__":
                add(entry)
            elif entry.name.endswith((".py", ".css", ".js")):
                digest.update(entry.name.encode() + b"\0" + entry.read_bytes())

    for package in packages:
        add(files(package))
    return digest.hexdigest()[:12]


def columns(table: str) -> dg.TableSchema:
    """A table's declared schema with units and meanings."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                str(column.dtype),
                description=markdown.escape_markdown(column.meaning) + (f" [{column.unit}]" if column.unit else ""),
            )
            for column in TABLES[table].columns
        ]
    )


def problems(lines: Sequence[str]) -> dg.MetadataValue:
    """Problems, one per line, or `none`; as plain text, since it contains names of tensors."""
    return dg.MetadataValue.text("\n".join(map(escape_text, lines)) or "none")


def table_spec(table: str, group: str, version: str, **spec: Any) -> dg.AssetSpec:
    """The asset of one lake table, described from its declaration."""
    return dg.AssetSpec(
        table,
        description=TABLES[table].meaning,
        metadata={"dagster/column_schema": columns(table)},
        **asset_arguments(group, "parquet", "polars", version=version),
        **spec,
    )


@dataclass(frozen=True)
class Part:
    """One partition of a table in the store; `digest` is the SHA-256 of its file."""

    uri: str
    rows: pl.DataFrame
    size: int
    digest: str

    def facts(self) -> dict[str, Any]:
        return {"dagster/uri": self.uri, "dagster/partition_row_count": self.rows.height, "bytes": self.size}

    @property
    def version(self) -> dg.DataVersion:
        return dg.DataVersion(self.digest)


def part(store: Store, table: str, **partition: str | int) -> Part | None:
    """A partition, read once for its rows and its digest; None if it is absent."""
    found = read_partition_file(store, table, **partition)
    if found is None:
        return None
    rows, data = found
    uri = f"{store.uri}/{partition_key(table, **partition)}"
    return Part(uri, rows, len(data), hashlib.sha256(data).hexdigest())


def version_of(value: Any) -> dg.DataVersion:
    """The data version of a value of JSON types."""
    return dg.DataVersion(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest())


def small_table(rows: Sequence[dict[str, Any]]) -> dg.MetadataValue:
    """Rows as a Markdown table; numbers with four significant digits."""
    if not rows:
        return dg.MetadataValue.md("nothing")
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    return dg.MetadataValue.md(markdown.render_table(lines, ["---"] * len(rows[0])))


def figure(png: bytes) -> dg.MetadataValue:
    """A PNG inline; a note instead of one too large for the event database."""
    if len(png) > PNG_LIMIT:
        return dg.MetadataValue.md(f"{len(png):,} bytes: see the report")
    return _image("figure", "png", png)


def curves(lines: Mapping[str, Sequence[Point]], x: str, y: str) -> dict[str, dg.MetadataValue]:
    """A small line chart as `figure`; empty if no point is finite."""
    drawn = sketch(lines, x, y)
    return {"figure": _image(y, "svg+xml", drawn.encode())} if drawn else {}


def report(study: str) -> dict[str, dg.MetadataValue]:
    """A link to the study's report, if reports are served."""
    root = os.environ.get(PAGES) or f"http://127.0.0.1:{PAGES_PORT}"
    return {"report": dg.MetadataValue.url(f"{root}/{study}/index.html")}


def _image(words: str, kind: str, data: bytes) -> dg.MetadataValue:
    return dg.MetadataValue.md(f"![{words}](data:image/{kind};base64,{base64.b64encode(data).decode()})")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
