"""The public API of the tables: `from pipelines.lake import scan; scan("rotation")` is a Polars LazyFrame.

scan(table, store, **partition)   all rows, or those of some partitions, in the declared types
TABLES                            every table with its columns, units and meanings; rendered in DICTIONARY.md
write, read_partition             replace or read one partition

`questions/` has three worked examples, with and without this package.
"""

from pipelines.lake.lake import read_partition, scan, write
from pipelines.lake.schemas import TABLES

__all__ = ["TABLES", "scan", "write", "read_partition"]
