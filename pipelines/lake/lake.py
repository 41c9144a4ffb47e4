"""Hive-partitioned Parquet: one deterministic object per table and partition, so that a rerun is an upsert.

`lake/<table>/recipe=<r>/seed=<n>/part-0.parquet`, and `lake/verdicts/study=<s>/part-0.parquet`. The keys also stand
inside the files. `pl.scan_parquet("<store>/lake/rotation/**/*.parquet")` reads the same without this project.
"""

import io
import os
from collections.abc import Sequence
from typing import Any

import polars as pl

from pipelines.lake.schemas import TABLES, Table
from pipelines.store.objects import Store, default_uri, normalise


def scan(table: str, store: str | None = None) -> pl.LazyFrame:
    """All rows of a table as a LazyFrame; empty, with the schema, where nothing is written yet.

    store: a URI or path; None is OPD_STORE or its default. Errors: ValueError for an unknown table.
    """
    declared = _declared(table)
    root = Store(normalise(store) if store else default_uri())
    # Listed by name, since a glob would read the brackets and stars in a store's own path.
    keys = [key for key in root.find(f"lake/{table}") if key.endswith(".parquet")]
    if not keys:
        return pl.DataFrame(schema=declared.schema).lazy()
    return pl.scan_parquet(
        [_source(root, key) for key in keys],
        schema=declared.schema,
        glob=False,
        hive_partitioning=False,
        missing_columns="insert",
        extra_columns="ignore",
        storage_options=s3_options() if root.uri.startswith("s3://") else None,
    )


def write(store: Store, table: str, rows: Sequence[dict[str, Any]] | pl.DataFrame, **partition: str | int) -> str:
    """Replace one partition of a table by `rows`; returns its key.

    Errors: ValueError when the partition keys or the rows do not fit the declared schema.
    """
    declared = _declared(table)
    if tuple(partition) != declared.by:
        raise ValueError(f"table {table} is partitioned by {declared.by}, got {tuple(partition)}")
    frame = rows if isinstance(rows, pl.DataFrame) else _frame(declared, rows)
    if frame.schema != declared.schema:
        raise ValueError(f"rows of {table} have schema {frame.schema}, declared is {declared.schema}")
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=True)
    key = partition_key(table, **partition)
    store.write(key, buffer.getvalue())
    return key


def written(store: Store, table: str, **partition: str | int) -> pl.DataFrame | None:
    """The stored rows of one partition, or None."""
    try:
        data = store.read(partition_key(table, **partition))
    except FileNotFoundError:
        return None
    return pl.read_parquet(io.BytesIO(data), hive_partitioning=False)


def partition_key(table: str, **partition: str | int) -> str:
    folders = "/".join(f"{name}={value}" for name, value in partition.items())
    return f"lake/{table}/{folders}/part-0.parquet"


def s3_options() -> dict[str, str]:
    """Polars' dialect of what the rest of the stack reads by itself: the AWS variables, or else the AWS files."""
    found = {
        "aws_access_key_id": os.environ.get("AWS_ACCESS_KEY_ID"),
        "aws_secret_access_key": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "aws_session_token": os.environ.get("AWS_SESSION_TOKEN"),
        "aws_region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        "aws_endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
    }
    if not found["aws_access_key_id"]:
        found = {option: found[option] or value for option, value in _from_files().items()}
    options = {"aws_region": "us-east-1"} | {option: value for option, value in found.items() if value}
    if endpoint := found["aws_endpoint_url"]:
        options["aws_allow_http"] = str(endpoint.startswith("http://")).lower()
    return options


def _from_files() -> dict[str, str | None]:
    """What AWS_PROFILE, or else the default profile, says in the AWS files; temporary keys are fetched."""
    from botocore.session import Session

    session = Session()
    credentials = session.get_credentials()
    keys = credentials.get_frozen_credentials() if credentials else None
    return {
        "aws_access_key_id": keys and keys.access_key,
        "aws_secret_access_key": keys and keys.secret_key,
        "aws_session_token": keys and keys.token,
        "aws_region": session.get_config_variable("region"),
        "aws_endpoint_url": session.get_scoped_config().get("endpoint_url"),
    }


def _source(root: Store, key: str) -> Any:
    """What Polars reads an object from: a path, an S3 URI, or the bytes of a store that only this process has."""
    if root.local:
        return root.path(key)
    return f"{root.uri}/{key}" if root.uri.startswith("s3://") else io.BytesIO(root.read(key))


def _declared(table: str) -> Table:
    if table not in TABLES:
        raise ValueError(f"unknown table {table!r}; known: {', '.join(TABLES)}")
    return TABLES[table]


def _frame(table: Table, rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    unknown = {column for row in rows for column in row} - set(table.schema)
    if unknown:
        raise ValueError(f"rows of {table.name} have undeclared columns {sorted(unknown)}")
    columns = []
    for name, dtype in table.schema.items():
        try:
            columns.append(pl.Series(name, [row.get(name) for row in rows], dtype, strict=True))
        except TypeError as error:
            raise ValueError(f"column {table.name}.{name}: {str(error).splitlines()[0]}") from None
    return pl.DataFrame(columns)
