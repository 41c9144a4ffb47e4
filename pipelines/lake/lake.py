"""Hive-partitioned Parquet: one deterministic object per table and partition, so that a rerun is an upsert.

`lake/<table>/recipe=<r>/seed=<n>/part-0.parquet`, and `lake/verdicts/study=<s>/part-0.parquet`. The keys also stand
inside the files. `pl.scan_parquet("<store>/lake/rotation/recipe=*/seed=*/part-0.parquet", hive_partitioning=True)`
reads the same without this project. Files of older and newer versions are read as `versions.py` says.
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

GROUP = 2**20  # rows of a row group, as Arrow's writer makes them
TEXTS = 2**16  # rows of a column whose texts are joined at once
DIGEST = b"sha256"  # of what a table says, in its metadata; tables of earlier versions have none
log = logging.getLogger("opd")
_TEMPORARY = re.compile(r"/\.part-0\.parquet\.[0-9a-f]{32}$")  # of a write that goes on, or was killed
_told: set[tuple[str, ...]] = set()
REMEDY = "measure the run again (`opd study run`, `opd measure`), or bring the table back from a copy"


def scan(table: str, store: str | None = None, **partition: str | int) -> pl.LazyFrame:
    """All rows of a table as a LazyFrame; empty, with the schema, where a store has none of it yet.

    A filter on the partition's keys opens only the files of these partitions. `partition`, keys with one value each,
    lists only them: `scan("rotation", recipe="tiny.opd")`. Only partitions are read, by their names; what else lies
    among them, such as a copy of one, is logged once.

    store: a URI or path; None is OPD_STORE or its default. Errors: ValueError for an unknown table or key, and for a
    store that does not exist; from collecting, pl.exceptions.SchemaError in one line where a file has a column of a
    type that is not the declared one.
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

    Errors: ValueError when the partition keys or the rows do not fit the declared schema.
    """
    if table in TABLES and tuple(partition) != TABLES[table].by:
        raise ValueError(f"table {table} is partitioned by {TABLES[table].by}, got {tuple(partition)}")
    data, key = file_of(table, rows), partition_key(table, **partition)
    store.write(key, data)
    return key


def file_of(table: str, rows: Sequence[dict[str, Any]] | pl.DataFrame) -> bytes:
    """What `write` writes. Errors: ValueError when the rows do not fit the declared schema."""
    declared = _declared(table)
    frame = rows if isinstance(rows, pl.DataFrame) else _frame(declared, rows, {})
    if plain_schema(frame.schema) != declared.schema:
        raise ValueError(f"rows of {table} have schema {frame.schema}, declared is {declared.schema}")
    return encode_partition(frame)


def compact(
    table: str, rows: Sequence[dict[str, Any]] | Mapping[str, Sequence[Any]], constants: Mapping[str, Any]
) -> pl.DataFrame:
    """Rows, or their columns, of a table in the declared order, with texts as categories: four bytes each.

    constants: columns of one value. Columns that are nowhere are null. Errors: ValueError as of `write`.
    """
    texts = pl.col(pl.String).cast(pl.Categorical)
    return _frame(_declared(table), rows, constants).with_columns(texts)


def plain_schema(schema: pl.Schema) -> pl.Schema:
    """The schema with categories as the texts that they stand for."""
    return pl.Schema({name: pl.String() if kind == pl.Categorical else kind for name, kind in schema.items()})


def encode_partition(frame: pl.DataFrame) -> bytes:
    """A partition's file, with the digest of what it says. Texts may be categories; few are texts at once."""
    # Arrow's writer, since Polars' puts no checksum on a page. Names of columns lie in none, hence the digest. Nor does
    # Arrow's own schema, which says nothing that Parquet's types do not, and which Polars believes: it is left out.
    how = {"compression": "zstd", "write_page_checksum": True, "store_schema": False}
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, _arrow(frame.clear()).schema, **how) as file:
        for rows in frame.iter_slices(GROUP) if len(frame) else (frame,):
            file.write_table(_arrow(rows))
        file.add_key_value_metadata({DIGEST: _digest(frame)})
    return buffer.getvalue()


def _arrow(rows: pl.DataFrame) -> pa.Table:
    """Rows in one piece, with texts for categories."""
    kinds = plain_schema(rows.schema).items()
    return pa.table({name: rows[name].cast(kind).rechunk().to_arrow() for name, kind in kinds})


def read_partition(store: Store, table: str, **partition: str | int) -> pl.DataFrame | None:
    """The stored rows of one partition, or None. Errors: ValueError naming an object that is not what was written."""
    found = read_partition_file(store, table, **partition)
    return None if found is None else found[0]


def read_partition_file(store: Store, table: str, **partition: str | int) -> tuple[pl.DataFrame, bytes] | None:
    """The rows of one partition, and the file they stand in. Errors: as `written`."""
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
    """The rows of one object of a table in the declared schema (`versions`), with its checksums verified.

    Errors: ValueError that goes on from its name, where it cannot be read, or a column is of another type.
    """
    try:
        # Arrow first: what is damaged makes Polars panic.
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        found = file.read(use_threads=False)
        found.validate(full=True)
        # Without what else the file says of the columns, which is never used, and which may make Polars panic too.
        frame = pl.from_arrow(pa.table(found.columns, names=found.schema.names))
        assert isinstance(frame, pl.DataFrame)
        digest = _digest(frame)
    except (pa.ArrowException, OSError, ValueError, TypeError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"cannot be read ({escape_text((str(error).splitlines() or [''])[0])})") from None
    said = (found.schema.metadata or {}).get(DIGEST)
    if said != digest and (said is not None or not _of_polars(file)):
        raise ValueError("is not what was written there")
    if frame.schema == table.schema:
        return frame
    if problem := versions.explain_mismatch(table, frame.schema):
        raise ValueError(f"{problem}: it is of another version")
    return versions.read_files([io.BytesIO(data)], table).collect()


def _of_polars(file: pq.ParquetFile) -> bool:
    """Whether a file is by Polars, as those of earlier versions are, which have no digest."""
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
    """The first object of a table that cannot be read, and why, in one line; empty where there is none."""
    for key in store.find("lake"):
        table = key.split("/")[1]
        if table in TABLES and describe_layout(TABLES[table]).fullmatch(key):
            try:
                read_object(data := store.read(key), TABLES[table])
                versions.read_files([io.BytesIO(data)], TABLES[table]).collect()
            except ValueError as error:
                return f"{store.uri}/{key} {error}; {REMEDY}"
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:  # where Arrow finds nothing
                return f"{store.uri}/{key} cannot be read ({escape_text(str(error).splitlines()[0])}); {REMEDY}"
    return ""


def partition_key(table: str, **partition: str | int) -> str:
    """Errors: ValueError for a value that is no name of a folder, or that a reader would take for none of these."""
    if space := [value for value in partition.values() if re.search(r"\s", str(value))]:
        raise ValueError(f"{repr_short(space[0])} has a space, which no key of a table has; leave it out")
    folders = "/".join(f"{name}={require_name(str(value), name)}" for name, value in partition.items())
    return f"lake/{table}/{folders}/part-0.parquet"


@cache
def describe_layout(table: Table) -> re.Pattern[str]:
    """What a key of one of the table's partitions is like. Copies are often named `... copy`: no name has a space."""
    values = (r"(?:0|-?[1-9]\d{0,17})" if table.schema[name] == pl.Int64 else r"[^/\s]+" for name in table.by)
    folders = "/".join(f"{name}={value}" for name, value in zip(table.by, values, strict=True))
    return re.compile(rf"lake/{table.name}/{folders}/part-0\.parquet", re.ASCII)


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


def _files(root: Store, table: Table, partition: dict[str, str | int]) -> list[str]:
    """Keys of the table's files, of these partitions alone; as few prefixes as possible are listed.

    Listed by name, since a glob would read the brackets and stars in a store's own path.
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
    """Log, once, what lies among the partitions of a table and is not read; not what is being written."""
    others = [key for key in others if not _TEMPORARY.search(key)]
    if others and (uri, *others) not in _told:
        _told.add((uri, *others))
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        log.warning(
            "%s/%s%s %s no partition of the table %s and %s not read; move %s out of the store (`opd verify` names %s)",
            uri,
            escape_text(others[0]),
            more,
            *(("are", table.name, "are", "them", "them") if more else ("is", table.name, "is", "it", "it")),
        )


def _keys_are_read_from_paths(root: Store, table: Table, keys: Sequence[str]) -> bool:
    """Whether Polars takes the partition's keys from the paths as they are, and so knows what not to open.

    It would read an "=" in the store's own path as a key, and decode a "%" in a value; bytes have no path.
    """
    if root.uri.startswith("memory://") or "=" in root.uri:
        return False
    return all("%" not in key and key.count("=") == len(table.by) for key in keys)


def _source(root: Store, key: str) -> Any:
    """What Polars reads an object from: a path, an S3 URI, or the bytes of a store that only this process has."""
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
