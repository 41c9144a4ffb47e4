"""Hive-partitioned Parquet: one deterministic object per table and partition, so that a rerun replaces its rows.

`lake/<table>/recipe=<r>/seed=<n>/part-0.parquet`, and `lake/verdicts/study=<s>/part-0.parquet`. The keys are also
columns of the files. `pl.scan_parquet("<store>/lake/rotation/recipe=*/seed=*/part-0.parquet", hive_partitioning=True)`
reads the same rows without this project. `versions.py` describes how files of older and newer versions are read.
"""

import hashlib
import io
import logging
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake import versions
from pipelines.lake.schemas import TABLES, Table
from pipelines.store.names import escape_text, repr_short, require_name
from pipelines.store.objects import Store, default_uri, normalise

GROUP = 2**20  # rows per row group, Arrow's default
TEXTS = 2**16  # rows of a text column that are hashed at once
DIGEST = b"sha256"  # metadata key of the digest of a table's rows; tables of earlier versions have none
log = logging.getLogger("opd")
_TEMPORARY = re.compile(r"/\.part-0\.parquet\.[0-9a-f]{32}$")  # left by an unfinished write
_logged: set[tuple[str, ...]] = set()
REMEDY = "measure the run again (`opd study run`, `opd measure`), or bring the table back from a copy"


def scan(table: str, store: str | None = None, **partition: str | int) -> pl.LazyFrame:
    """All rows of a table as a LazyFrame; empty with the declared schema if the store has no rows of it.

    A filter on the partition keys opens only the files of these partitions. `partition` restricts the listing, too:
    `scan("rotation", recipe="tiny.opd")`. Only objects with a partition's name are read; others, such as a copy of a
    partition, are logged once.

    store: a URI or path; None means OPD_STORE or its default. Errors: ValueError for an unknown table or key, and for a
    store that does not exist. `collect` raises pl.exceptions.SchemaError in one line if a file's column has another
    type than the declared one.
    """
    declared = _declared(table)
    root = Store(normalise(store) if store else default_uri())
    keys = _files(root, declared, partition)
    if not keys:
        if not root.store_exists():
            raise ValueError(f"the store {root.uri} does not exist; name one that does, or set OPD_STORE to it")
        return pl.DataFrame(schema=declared.schema).lazy()
    return versions.read_files(
        [_source(root, key) for key in keys],
        declared,
        by_path=_keys_are_read_from_paths(root, declared, keys),
        storage_options=s3_options() if root.uri.startswith("s3://") else None,
    )


def write(store: Store, table: str, rows: Sequence[dict[str, Any]] | pl.DataFrame, **partition: str | int) -> str:
    """Replace one partition of a table by `rows`; returns its key.

    Errors: ValueError if the partition keys or the rows do not match the declared schema.
    """
    if table in TABLES and tuple(partition) != TABLES[table].by:
        raise ValueError(f"table {table} is partitioned by {TABLES[table].by}, got {tuple(partition)}")
    data, key = file_of(table, rows), partition_key(table, **partition)
    store.write(key, data)
    return key


def file_of(table: str, rows: Sequence[dict[str, Any]] | pl.DataFrame) -> bytes:
    """The bytes that `write` stores. Errors: ValueError if the rows do not match the declared schema."""
    declared = _declared(table)
    frame = rows if isinstance(rows, pl.DataFrame) else _frame(declared, rows, {})
    if plain_schema(frame.schema) != declared.schema:
        raise ValueError(f"rows of {table} have schema {frame.schema}, declared is {declared.schema}")
    return encode_partition(frame)


def compact(
    table: str, rows: Sequence[dict[str, Any]] | Mapping[str, Sequence[Any]], constants: Mapping[str, Any]
) -> pl.DataFrame:
    """A frame of a table's rows (or columns) in the declared order, with texts as categories of four bytes each.

    constants: columns with one value. Columns without values are null. Errors: ValueError as in `write`.
    """
    texts = pl.col(pl.String).cast(pl.Categorical)
    return _frame(_declared(table), rows, constants).with_columns(texts)


def plain_schema(schema: pl.Schema) -> pl.Schema:
    """The schema with text instead of categorical columns."""
    return pl.Schema({name: pl.String() if kind == pl.Categorical else kind for name, kind in schema.items()})


def encode_partition(frame: pl.DataFrame) -> bytes:
    """The Parquet file of a partition, with a digest of its rows. Categorical texts are decoded group by group."""
    # Arrow's writer adds page checksums; Polars' does not. Column names are outside of any page, hence the digest.
    # Arrow's own schema is outside, too, and Polars would trust it, so it is not stored.
    how = {"compression": "zstd", "write_page_checksum": True, "store_schema": False}
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, _arrow(frame.clear()).schema, **how) as file:
        for rows in frame.iter_slices(GROUP) if len(frame) else (frame,):
            file.write_table(_arrow(rows))
        file.add_key_value_metadata({DIGEST: _digest(frame)})
    return buffer.getvalue()


def _arrow(rows: pl.DataFrame) -> pa.Table:
    """The rows as one contiguous Arrow table, with texts instead of categories."""
    kinds = plain_schema(rows.schema).items()
    return pa.table({name: rows[name].cast(kind).rechunk().to_arrow() for name, kind in kinds})


def read_partition(store: Store, table: str, **partition: str | int) -> pl.DataFrame | None:
    """The stored rows of one partition, or None. Errors: ValueError with the key of a damaged object."""
    stored = read_partition_file(store, table, **partition)
    return None if stored is None else stored[0]


def read_partition_file(store: Store, table: str, **partition: str | int) -> tuple[pl.DataFrame, bytes] | None:
    """The rows of one partition and the bytes of its file, or None. Errors: as `read_partition`."""
    declared, key = _declared(table), partition_key(table, **partition)
    try:
        data = store.read(key)
    except FileNotFoundError:
        return None
    try:
        return read_object(data, declared), data
    except ValueError as error:
        raise ValueError(f"{store.uri}/{key} {error}; {REMEDY}") from None


def read_object(data: bytes, table: Table) -> pl.DataFrame:
    """The rows of one table object in the declared schema (`versions`), after its checksums are verified.

    Errors: ValueError if it cannot be read or a column has another type. The message completes "<key> <message>".
    """
    try:
        # Read with Arrow first: Polars panics on damaged files.
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table_read = file.read(use_threads=False)
        table_read.validate(full=True)
        # Drop the columns' metadata: it is not used and can make Polars panic.
        frame = pl.from_arrow(pa.table(table_read.columns, names=table_read.schema.names))
        assert isinstance(frame, pl.DataFrame)
        digest = _digest(frame)
    except (pa.ArrowException, OSError, ValueError, TypeError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"cannot be read ({escape_text((str(error).splitlines() or [''])[0])})") from None
    stored = (table_read.schema.metadata or {}).get(DIGEST)
    if stored != digest and (stored is not None or not _of_polars(file)):
        raise ValueError("is not what was written there")
    if frame.schema == table.schema:
        return frame
    if problem := versions.explain_mismatch(table, frame.schema):
        raise ValueError(f"{problem}: it is of another version")
    return versions.read_files([io.BytesIO(data)], table).collect()


def _of_polars(file: pq.ParquetFile) -> bool:
    """Whether Polars wrote a file. Earlier versions used it and stored no digest."""
    return str(file.metadata.created_by).startswith("Polars")


def _digest(frame: pl.DataFrame) -> bytes:
    """SHA-256 over names, types and values of all columns, in hexadecimal."""
    total = hashlib.sha256()
    for column, kind in zip(frame.iter_columns(), plain_schema(frame.schema).dtypes(), strict=True):
        total.update(f"{column.name} {kind} {len(column)}\n".encode(errors="surrogatepass"))
        nulls = column.null_count() > 0
        total.update(column.is_null().to_numpy().tobytes() if nulls else bytes(len(column)))
        if kind == pl.String:
            for begin in range(0, len(column), TEXTS):
                part = column.slice(begin, TEXTS).cast(pl.String)
                text = "\0".join((part.fill_null("") if nulls else part).to_list())
                total.update(("\0" + text if begin else text).encode())
        elif column.dtype.is_nested():
            total.update(repr(column.to_list()).encode())
        else:
            known = column.fill_null(False if column.dtype == pl.Boolean else 0) if nulls else column
            total.update(known.to_numpy().tobytes())
    return total.hexdigest().encode()


def find_damaged(store: Store) -> str:
    """The first unreadable table object and the reason, in one line; empty if there is none."""
    for key in store.find("lake"):
        table = key.split("/")[1]
        if table in TABLES and describe_layout(TABLES[table]).fullmatch(key):
            try:
                read_object(data := store.read(key), TABLES[table])
                versions.read_files([io.BytesIO(data)], TABLES[table]).collect()
            except ValueError as error:
                return f"{store.uri}/{key} {error}; {REMEDY}"
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:  # Arrow read it, Polars cannot
                return f"{store.uri}/{key} cannot be read ({escape_text(str(error).splitlines()[0])}); {REMEDY}"
    return ""


def partition_key(table: str, **partition: str | int) -> str:
    """The key of a partition's object. Errors: ValueError for a value that is no folder name or has whitespace."""
    if space := [value for value in partition.values() if re.search(r"\s", str(value))]:
        raise ValueError(f"{repr_short(space[0])} has a space, which no key of a table has; leave it out")
    folders = "/".join(f"{name}={require_name(str(value), name)}" for name, value in partition.items())
    return f"lake/{table}/{folders}/part-0.parquet"


@cache
def describe_layout(table: Table) -> re.Pattern[str]:
    """The pattern of the keys of a table's partitions. Values have no whitespace: copies are often named `... copy`."""
    values = (r"(?:0|-?[1-9]\d{0,17})" if table.schema[name] == pl.Int64 else r"[^/\s]+" for name in table.by)
    folders = "/".join(f"{name}={value}" for name, value in zip(table.by, values, strict=True))
    return re.compile(rf"lake/{table.name}/{folders}/part-0\.parquet", re.ASCII)


def s3_options() -> dict[str, str]:
    """Polars' S3 options from the AWS environment variables, or else from the AWS configuration files."""
    values = {
        "aws_access_key_id": os.environ.get("AWS_ACCESS_KEY_ID"),
        "aws_secret_access_key": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "aws_session_token": os.environ.get("AWS_SESSION_TOKEN"),
        "aws_region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        "aws_endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
    }
    if not values["aws_access_key_id"]:
        values = {option: values[option] or value for option, value in _from_files().items()}
    options = {"aws_region": "us-east-1"} | {option: value for option, value in values.items() if value}
    if endpoint := values["aws_endpoint_url"]:
        options["aws_allow_http"] = str(endpoint.startswith("http://")).lower()
    return options


def _from_files() -> dict[str, str | None]:
    """The options of AWS_PROFILE or the default profile in the AWS files; fetches temporary keys."""
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


def _files(root: Store, table: Table, partition: dict[str, str | int]) -> list[str]:
    """Keys of the table's files in these partitions. Lists the longest common prefix.

    Uses a listing, since a glob would interpret brackets and stars in the store's path.
    """
    if unknown := [name for name in partition if name not in table.by]:
        raise ValueError(f"table {table.name} is partitioned by {table.by}, not by {unknown[0]!r}; filter its rows")
    folders = [f"{name}={partition[name]}" for name in table.by if name in partition]
    leading = [f"{name}={partition[name]}" for name in table.by[: len(folders)] if name in partition]
    prefix = "/".join(["lake", table.name, *(leading if leading == folders else [])])
    keys = [key for key in root.find(prefix) if set(folders) <= set(key.split("/")[:-1])]
    partitions = [key for key in keys if describe_layout(table).fullmatch(key)]
    if len(partitions) < len(keys):
        _log_foreign_keys(root.uri, table, sorted(set(keys).difference(partitions)))
    return partitions


def _log_foreign_keys(uri: str, table: Table, others: list[str]) -> None:
    """Log once which objects among a table's partitions are not read. Temporary files are not logged."""
    others = [key for key in others if not _TEMPORARY.search(key)]
    if others and (uri, *others) not in _logged:
        _logged.add((uri, *others))
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        log.warning(
            "%s/%s%s %s no partition of the table %s and %s not read; move %s out of the store (`opd verify` names %s)",
            uri,
            escape_text(others[0]),
            more,
            *(("are", table.name, "are", "them", "them") if more else ("is", table.name, "is", "it", "it")),
        )


def _keys_are_read_from_paths(root: Store, table: Table, keys: Sequence[str]) -> bool:
    """Whether Polars can take the partition keys from the paths, and so skip files that a filter excludes.

    It cannot if the store's path has "=", which it takes for a key, or a value has "%", which it decodes. Bytes in
    memory have no path.
    """
    if root.uri.startswith("memory://") or "=" in root.uri:
        return False
    return all("%" not in key and key.count("=") == len(table.by) for key in keys)


def _source(root: Store, key: str) -> Any:
    """The source of an object for Polars: a path, an S3 URI, or the bytes of another store."""
    if root.local:
        return root.path(key)
    return f"{root.uri}/{key}" if root.uri.startswith("s3://") else io.BytesIO(root.read(key))


def _declared(table: str) -> Table:
    if table not in TABLES:
        raise ValueError(f"unknown table {table!r}; known: {', '.join(TABLES)}")
    return TABLES[table]


def _frame(
    table: Table, rows: Sequence[dict[str, Any]] | Mapping[str, Sequence[Any]], constants: Mapping[str, Any]
) -> pl.DataFrame:
    by_column = isinstance(rows, Mapping)
    unknown = (set(rows) if by_column else {column for row in rows for column in row}) | set(constants)
    unknown -= set(table.schema)
    if unknown:
        raise ValueError(f"rows of {table.name} have undeclared columns {sorted(unknown)}")
    height = len(next(iter(rows.values()), ())) if by_column else len(rows)
    columns = []
    for name, dtype in table.schema.items():
        try:
            if name in constants or (by_column and name not in rows):
                columns.append(pl.Series(name, [constants.get(name)], dtype, strict=True).new_from_index(0, height))
            else:
                values = rows[name] if by_column else [row.get(name) for row in rows]
                columns.append(pl.Series(name, values, dtype, strict=True))
        except TypeError as error:
            raise ValueError(f"column {table.name}.{name}: {str(error).splitlines()[0]}") from None
    return pl.DataFrame(columns)
