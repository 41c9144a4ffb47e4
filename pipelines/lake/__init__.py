"""The public door to the tables: `from pipelines.lake import scan; scan("rotation")` is a Polars LazyFrame.

scan(table, store, **partition)   all rows, or those of some partitions, in the declared types
TABLES                            every table with its columns, their units and meanings; as a page: DICTIONARY.md
write, written                    replace and read one partition

Three worked questions, by this door and without it, are in `questions/`.
"""

from pipelines.lake.lake import read_partition, scan, write
from pipelines.lake.schemas import TABLES

__all__ = ["TABLES", "scan", "write", "read_partition"]
